"""The judge reads drawn videos back, clean and blurred, whole and by windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from longvid.sprites import (
    SIZE,
    Scene,
    Sprite,
    background_drift,
    draw,
    draw_background,
    read,
    read_batch,
    sample_scene,
    temporal_flicker,
    track,
)
from longvid.sprites.captions import place_words
from longvid.sprites.scene import MOTIONS

BARS = {"background": 0.99, "style": 0.99, "color": 0.99, "motion": 0.99, "shape": 0.97, "place": 0.97}


def spoil(videos: torch.Tensor) -> torch.Tensor:
    """What a small autoencoder does to pictures: a blur of 0.7 pixels and noise, about 31 dB PSNR together."""
    line = torch.exp(-(torch.arange(-3, 4.0) ** 2) / (2 * 0.7**2))
    kernel = (line / line.sum()).outer(line / line.sum())[None, None]
    frames = F.pad(videos.flatten(0, 2)[:, None], (3,) * 4, mode="replicate")
    blurred = F.conv2d(frames, kernel)[:, 0].view_as(videos)
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    return (blurred + 0.02 * noise).clamp(0, 1)


def accuracies(
    first_seed: int, count: int, window: slice, *, num_sprites: int = 1, spoiled: bool = False
) -> dict[str, float]:
    """Share of right answers per attribute over drawn videos, half of them of held-out combinations."""
    hits: Counter[str] = Counter()
    for start in range(first_seed, first_seed + count, 16):
        seeds = range(start, min(start + 16, first_seed + count))
        scenes = [sample_scene(s, split="held_out" if s % 2 else "train", num_sprites=num_sprites) for s in seeds]
        videos = draw(scenes, window.stop - window.start, start=window.start)
        for scene, reading in zip(scenes, read_batch(spoil(videos) if spoiled else videos, num_sprites), strict=True):
            hits["background"] += reading.background_color == scene.background_color
            hits["style"] += reading.background_style == scene.background_style
            seen = {sprite.color: sprite for sprite in reading.sprites}
            for truth in scene.sprites:
                found = seen.get(truth.color)
                hits["color"] += found is not None
                if found is not None:
                    at = track(truth, 1, window.start)
                    hits["shape"] += found.shape == truth.shape
                    hits["motion"] += found.motion == truth.motion
                    hits["speed"] += truth.motion == "still" or found.speed == truth.speed
                    hits["size"] += truth.motion == "breathing" or found.size == truth.size
                    hits["place"] += found.places[0] == place_words(at.x.item(), at.y.item())
                    hits["present"] += bool(found.present.all())
    per_scene = ("background", "style")
    return {name: number / (count if name in per_scene else count * num_sprites) for name, number in hits.items()}


@pytest.mark.parametrize("window", [slice(0, 16), slice(48, 64)], ids=["first 16", "last 16"])
def test_windows_of_16_drawn_frames_are_read_within_the_bars(window):
    found = accuracies(20_000, 96, window)
    assert all(found[name] >= bar for name, bar in BARS.items()), found


def test_blurred_and_noisy_windows_are_read_within_the_bars():
    found = accuracies(30_000, 64, slice(48, 64), spoiled=True)
    assert all(found[name] >= bar for name, bar in BARS.items()), found
    assert found["speed"] >= 0.95 and found["size"] >= 0.95


def test_whole_videos_of_64_frames_are_read_within_the_bars():
    found = accuracies(40_000, 16, slice(0, 64))
    assert all(found[name] >= bar for name, bar in BARS.items()), found
    assert found["present"] == 1


def test_single_frames_are_read_without_motion():
    scenes = [sample_scene(s, num_sprites=1, split=None) for s in range(60)]
    readings = read_batch(draw(scenes, 1, start=9))
    right = [r.sprites[0].shape == s.sprites[0].shape for r, s in zip(readings, scenes, strict=True)]
    assert sum(right) >= 58
    assert {r.sprites[0].motion for r in readings} == {"unclear"}


def test_two_sprites_are_told_apart_by_colour():
    found = accuracies(50_000, 24, slice(0, 24), num_sprites=2)
    assert found["background"] == 1 and found["style"] == 1
    assert found["color"] >= 0.97 and found["shape"] >= 0.95 and found["motion"] >= 0.9, found


@pytest.mark.slow
@pytest.mark.parametrize("spoiled", [False, True], ids=["clean", "spoiled"])
@pytest.mark.parametrize(
    "window", [slice(0, 64), slice(0, 16), slice(48, 64)], ids=["64 frames", "first 16", "last 16"]
)
def test_500_drawn_videos_are_read_within_the_bars(window, spoiled):
    found = accuracies(100_000, 512, window, spoiled=spoiled)
    assert all(found[name] >= bar for name, bar in BARS.items()), found


def still_scene(**fields) -> Scene:
    base = Sprite(shape="star", color="red", size="large", motion="still", speed="normal", x=30.0, y=24.0)
    return Scene("blue", "checkered", (replace(base, **fields),))


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_read_at_every_speed_across_the_border_of_the_picture(motion):
    start = {} if motion == "bouncing" else {"x": 62.0, "y": 1.0}
    scenes = [still_scene(motion=motion, speed=speed, size="small", **start) for speed in ("slow", "normal", "fast")]
    for scene, reading in zip(scenes, read_batch(draw(scenes, 24)), strict=True):
        assert reading.sprites[0].motion == motion
        assert reading.sprites[0].speed == (None if motion == "still" else scene.sprites[0].speed)


def test_a_bouncing_sprite_is_known_by_its_reversals_and_a_steady_diagonal_is_not_bouncing():
    scene = still_scene(motion="bouncing", speed="fast", size="small")
    assert read(draw(scene, 64)[0]).sprites[0].motion == "bouncing"
    frames = [draw(still_scene(x=(10 + 3.0 * t) % SIZE, y=(10 + 2.0 * t) % SIZE), 1) for t in range(64)]
    assert read(torch.cat(frames, 2)[0]).sprites[0].motion == "right"


def test_a_jumping_sprite_moves_in_no_clear_way():
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(32, 2, generator=generator) * SIZE
    frames = [draw(still_scene(x=x, y=y), 1) for x, y in places.tolist()]
    assert read(torch.cat(frames, 2)[0]).sprites[0].motion == "unclear"


def test_a_passing_sprite_is_seen_to_leave_and_to_come_back_as_itself():
    scene = still_scene(motion="passing right", speed="fast", gap=12, size="medium")
    sprite = read(draw(scene, 37)[0]).sprites[0]
    assert sprite.motion == "passing right"
    assert not sprite.present.all() and sprite.present[0] and sprite.present[-1]
    whole = {sprite.identities[0], sprite.identities[-1]}
    assert whole == {("star", "red")} and None in sprite.identities


def test_tracks_follow_the_truth_to_a_fraction_of_a_pixel():
    scene = sample_scene(7, num_sprites=1, motions=("right",))
    sprite, truth = read(draw(scene, 32)[0]).sprites[0], track(scene.sprites[0], 32)
    for seen, true in ((sprite.x, truth.x), (sprite.y, truth.y)):
        assert ((seen - true + 32) % SIZE - 32).abs().max() < 0.3
    assert (sprite.radius - truth.radius).abs().max() < 0.5


def test_angles_follow_a_spinning_sprite_modulo_its_symmetry():
    scene = still_scene(motion="spinning", speed="normal")
    sprite, truth = read(draw(scene, 20)[0]).sprites[0], track(scene.sprites[0], 20)
    assert ((sprite.angle - truth.angle + 36) % 72 - 36).abs().max() < 3


def test_identity_is_read_frame_by_frame():
    red, blue = draw(still_scene(), 8), draw(replace_color(still_scene(), "yellow", "cross"), 8)
    sprite = read(torch.cat([red, blue], 2)[0]).sprites[0]
    assert sprite.identities == (("star", "red"),) * 8 + (("cross", "yellow"),) * 8


def replace_color(scene: Scene, color: str, shape: str) -> Scene:
    return replace(scene, sprites=(replace(scene.sprites[0], color=color, shape=shape),))


def test_an_empty_background_has_no_sprite():
    scene = still_scene()
    reading = read(draw_background(scene)[:, None].expand(-1, 16, -1, -1))
    assert not reading.sprites[0].present.any() and not reading.mask.any()
    assert (reading.background_color, reading.background_style) == ("blue", "checkered")
    assert reading.sprites[0].motion == "unclear" and set(reading.sprites[0].places) == {None}


def test_noise_and_flat_pictures_have_no_sprite():
    noise = torch.rand(3, 16, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for video in (noise, torch.zeros(3, 16, SIZE, SIZE), torch.ones(3, 16, SIZE, SIZE)):
        for num_sprites in (1, 2):
            assert not any(s.present.any() for s in read(video, num_sprites).sprites)


def test_drawn_backgrounds_do_not_drift_and_a_shift_is_measured_exactly():
    video = draw(sample_scene(11, num_sprites=1, motions=("circling",)), 32)[0]
    assert background_drift(video, 31) == pytest.approx(0, abs=1e-3)
    shifted = video * 0.8
    shifted[:, 31] += 10 / 255
    assert background_drift(shifted, 31) == pytest.approx(10, abs=0.05)
    assert background_drift(shifted, 31, reference=30) == pytest.approx(10, abs=0.05)


def test_a_sprite_that_moves_is_not_drift_but_a_lost_background_is():
    video = draw(still_scene(motion="right", speed="fast"), 24)[0]
    assert background_drift(video, 20) < 1e-3
    video[:, 20] = 0.5
    assert background_drift(video, 20) > 20


def test_flicker_is_the_mean_change_between_neighbouring_frames():
    video = torch.zeros(3, 4, 8, 8)
    video[:, 1::2] = 0.1
    assert temporal_flicker(video) == pytest.approx(25.5, abs=1e-4)
    with pytest.raises(ValueError, match="two frames"):
        temporal_flicker(video[:, :1])


def test_videos_of_another_shape_are_refused():
    good = torch.zeros(3, 2, SIZE, SIZE)
    for video, sprites, message in (
        (good[None], 1, "one video"),
        (good[:1], 1, "expected videos"),
        (good[..., :32], 1, "expected videos"),
        (good, 3, "num_sprites"),
        (good / 0, 1, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            read(video, sprites)
