"""The distillation of place words into HARIVO's frame tokens."""

import itertools
import re

import pytest
import torch
from diffusers import DDPMScheduler

import tiny
from longvid.modules import FrameTokenGenerator
from longvid.sprites import SIZE, Scene, Sprite, caption_clip
from longvid.sprites.scene import SPEEDS
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer, tokenize
from longvid.training.harivo_distillation import (
    DistillationObjective,
    DistillationOptions,
    distillation_batches,
    frame_captions,
)
from longvid.training.latents import training_scenes
from longvid.training.loop import OptimizerOptions, train
from longvid.training.unet import loss_weight

TOKENS = build_tokenizer()
FRAMES = 4


def scene_of(motion, speed="normal"):
    return Scene("gray", "solid", (Sprite("star", "red", "medium", motion, speed, 11.0, 34.0),))


def built(tokens_per_frame=2, **options):
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), TOKENS).text_model.eval()
    tokens = FrameTokenGenerator(tiny.TEXT_WIDTH, 32, FRAMES, tokens_per_frame)
    scheduler = DDPMScheduler(**tiny.BETAS, clip_sample=False, prediction_type="v_prediction")
    recipe = DistillationOptions(batch_size=2, frames_per_clip=2, **options)
    unet = tiny.unet()
    return DistillationObjective(tokens, text_encoder, unet, scheduler, recipe, (unet.config.in_channels, 8, 8))


@pytest.mark.parametrize(
    ("motion", "places", "on_grid"),
    [
        ("right", ("at the left", "in the middle", "at the right"), "at 5 5"),
        ("up", ("at the bottom", "in the middle", "at the top"), "at 5 4"),
    ],
)
def test_a_frames_caption_says_the_place_on_the_way_and_neither_motion_nor_speed(motion, places, on_grid):
    caption = f"a red star moving {motion} slowly on a gray background"
    made = frame_captions(scene_of(motion, "slow"), caption, [0, 12, 23], 24, "thirds")
    assert made == [f"a red star {place} on a gray background" for place in places]
    assert frame_captions(scene_of(motion), f"a star moving {motion}", [12], 24) == [f"a star {on_grid}"]


@pytest.mark.parametrize("speed", ["slow", "normal", "fast"])
def test_places_on_a_grid_follow_the_speed(speed):
    scene = scene_of("right", speed)
    made = frame_captions(scene, caption_clip(scene), range(24), 24)
    columns = [int(re.fullmatch(r"a red star at (\d) 5 on a gray solid background", text)[1]) for text in made]
    steps = [(after - before) % 10 for before, after in itertools.pairwise(columns)]
    assert set(steps) <= {0, 1} and sum(steps) * SIZE / 10 == pytest.approx(23 * SPEEDS[speed], abs=SIZE / 10)


def test_a_caption_that_fixes_no_place_stays_as_it_is():
    for motion, caption in (("circling", "a red star moving in a circle"), ("left", "a red star"), ("left", "")):
        assert frame_captions(scene_of(motion), caption, [0, 5], 24) == [caption] * 2


def test_without_tokens_and_with_the_same_captions_there_is_nothing_to_learn():
    objective = built(tokens_per_frame=0)
    batch = distillation_batches(DistillationOptions(drop_text=1.0), [scene_of("left")], TOKENS, FRAMES)(0)
    assert (batch["input_ids"] == tokenize(TOKENS, [""])).all()
    assert batch["frame_ids"].shape == (4, FRAMES, 32) and batch["frames"].sort().values.tolist() == [[0, 1, 2, 3]] * 4
    assert objective(batch, torch.Generator().manual_seed(0))["loss"].item() == pytest.approx(0, abs=1e-12)


def test_the_loss_is_the_distance_to_what_the_image_model_predicts_under_the_frames_caption():
    objective = built(pure_noise=1.0)
    batch = distillation_batches(objective.options, [scene_of("left")], TOKENS, FRAMES)(1)
    sample, times = [], []
    noisy = objective._noisy
    objective._noisy = lambda *args: [
        seen.append(x) or x for seen, x in zip((sample, times), noisy(*args), strict=True)
    ]
    loss = objective(batch, torch.Generator().manual_seed(0))["loss"]
    [x], [t] = sample, times
    assert set(t.tolist()) == {999}
    errors = []
    for row in range(4):
        clip, place = divmod(row, 2)
        text = objective.text_encoder(batch["input_ids"][clip : clip + 1]).last_hidden_state
        own = objective.frame_tokens(text)[:, batch["frames"][clip, place]]
        wanted = objective.text_encoder(batch["frame_ids"][clip, place][None]).last_hidden_state
        made, target = (
            objective.unet(x[row : row + 1], 999, context).sample for context in (torch.cat([text, own], 1), wanted)
        )
        errors.append((made - target).square().mean() * loss_weight(objective.scheduler, t[:1], 5.0)[0])
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_the_frame_tokens_alone_learn_and_they_do():
    objective = built(timestep_power=0.0)
    before = [p.clone() for part in (objective.unet, objective.text_encoder) for p in part.parameters()]
    batch = distillation_batches(objective.options, training_scenes(6, 0, ("left", "up")), TOKENS, FRAMES)(0)
    options = OptimizerOptions(learning_rate=1e-2, lr_schedule="constant", ema_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    first = objective(batch, generator.manual_seed(1))["loss"].item()
    list(train(objective, lambda _: batch, options, num_steps=8))
    assert objective(batch, generator.manual_seed(1))["loss"].item() < first
    after = [p for part in (objective.unet, objective.text_encoder) for p in part.parameters()]
    assert all(map(torch.equal, before, after))


def test_the_distillation_needs_one_sprite_that_moves_straight():
    with pytest.raises(ValueError, match="one sprite that moves straight"):
        distillation_batches(DistillationOptions(), [scene_of("circling")], TOKENS, FRAMES)
