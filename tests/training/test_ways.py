"""Where straight motions of drawn clips go: the laws of the ways, and that recipes follow them."""

import pytest
import torch

from longvid.cli.settings import merge_settings
from longvid.sprites import Scene, Sprite
from longvid.sprites.motion import track
from longvid.sprites.scene import SPEEDS
from longvid.training.clip import build_tokenizer
from longvid.training.config_video import VideoBaseSettings
from longvid.training.latents import reverse_time, training_scenes
from longvid.training.video_base import drawn_clips, video_base_scenes
from longvid.training.ways import WAYS, crossing, on_their_ways, typical

TOKENS = build_tokenizer()


def scene_of(motion, speed="normal"):
    return Scene("gray", "solid", (Sprite("square", "red", "medium", motion, speed, 11.0, 34.0),))


@pytest.mark.parametrize("speed", ["slow", "fast"])
@pytest.mark.parametrize("motion", ["left", "right", "up", "down"])
def test_a_crossing_passes_the_middle_of_its_way_half_way_through(motion, speed):
    path = track(crossing(scene_of(motion, speed), 25).sprites[0], 25)
    along, across = (path.x, path.y) if motion in ("left", "right") else (path.y, path.x)
    assert along[12].item() == pytest.approx(32, abs=1e-4)
    assert set(across.tolist()) == {34.0 if motion in ("left", "right") else 11.0}
    backwards = crossing(reverse_time(scene_of(motion, speed)), 25).sprites[0]
    mirrored = track(backwards, 25)
    torch.testing.assert_close(torch.stack([mirrored.x, mirrored.y]).flip(1), torch.stack([path.x, path.y]))


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_typical_motion_goes_through_the_middle_at_its_own_speed(speed):
    path = track(typical(scene_of("left", speed), 25).sprites[0], 25)
    assert set(path.y.tolist()) == {32.0} and path.x[12].item() == pytest.approx(32)
    assert path.x[11].item() == pytest.approx(32 + SPEEDS[speed])


def test_other_motions_stay_where_they_are():
    for motion in ("bouncing", "circling", "still"):
        assert crossing(scene_of(motion), 24) == typical(scene_of(motion), 24) == scene_of(motion)


@pytest.mark.parametrize("ways", WAYS)
def test_clips_of_a_video_base_go_the_way_of_its_recipe_but_for_those_that_stay_as_drawn(ways):
    words = ["num_scenes=40", "as_drawn=0.25", f"ways={ways}", "clip_frames=25", "num_frames=25", "batch_size=64"]
    settings = merge_settings(VideoBaseSettings, overrides=words)
    drawn, made = training_scenes(40, settings.seed, settings.motions), video_base_scenes(settings)
    change = {"drawn": lambda scene, _: scene, "crossing": crossing, "typical": typical}[ways]
    assert made == drawn[:10] + [change(scene, 25) for scene in drawn[10:]] == on_their_ways(drawn, ways, 25, 0.25)


def test_captions_of_typical_motions_say_the_speed():
    def unsaid(*words):
        settings = merge_settings(
            VideoBaseSettings, overrides=["batch_size=64", "clip_frames=3", "num_frames=3", *words]
        )
        batch = drawn_clips(settings, torch.zeros(1, 3, 1, 1, 1), [scene_of("left", "slow")], TOKENS)(0)
        captions = TOKENS.batch_decode(batch["input_ids"], skip_special_tokens=True)
        return sum("moving" in caption and "slowly" not in caption for caption in captions)

    assert unsaid("ways=typical") == 0
    assert unsaid("ways=drawn") > 0 and unsaid("ways=typical", "as_drawn=1", "num_scenes=1") > 0
