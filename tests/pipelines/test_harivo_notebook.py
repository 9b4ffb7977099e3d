"""What the notebook of HARIVO trains: pictures of the drawn world, a style and a sketch control that learn from them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline

import tiny
from longvid.sprites import Scene, Sprite, draw, draw_background, sample_scene, track

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import harivo_training

CIRCLE = Scene("pink", "solid", (Sprite("circle", "blue", "large", "right", "slow", x=20, y=30),))
FEW = {"num_steps": 2, "num_scenes": 4, "num_frames": 2}
QUICK = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}


def pixels_from_centre(scene, num_frames):
    """The distance of every pixel from the centre of the first sprite, (F, 64, 64)."""
    path, at = track(scene.sprites[0], num_frames), torch.arange(64) + 0.5
    return torch.hypot(at[None, None] - path.x[:, None, None], at[None, :, None] - path.y[:, None, None])


def test_a_sketch_of_a_circle_is_a_ring_one_pixel_wide_at_its_radius():
    (sketch,) = harivo_training.sketches([CIRCLE], 3)
    assert sketch.shape == (3, 3, 64, 64) and sketch.unique().tolist() == [0, 1] and torch.equal(sketch[0], sketch[2])
    away, radius = pixels_from_centre(CIRCLE, 3), CIRCLE.sprites[0].radius
    ring = sketch[0].bool()
    assert (away[ring] <= radius).all() and (away[ring] > radius - 1.5).all()
    assert ((away <= radius) & (away > radius - 0.9) & ~ring).sum() == 0


def test_by_night_the_sprite_shines_as_before_on_a_background_of_three_tenths():
    scenes = [CIRCLE, sample_scene(1, num_sprites=1)]
    dark, bright, covered = (paint(scenes, 2) for paint in (harivo_training.night, draw, harivo_training.coverage))
    background = torch.stack([draw_background(scene) for scene in scenes])[:, :, None].expand_as(dark)
    inside, outside = (covered > 0.999).expand_as(dark), (covered < 1e-6).expand_as(dark)
    torch.testing.assert_close(dark[inside], bright[inside], atol=1e-3, rtol=0)
    torch.testing.assert_close(dark[outside], 0.3 * background[outside], atol=1e-6, rtol=0)


def test_the_distance_of_a_drawn_video_from_its_own_scene_is_next_to_nothing():
    video = draw(CIRCLE, 6)[0].transpose(0, 1)
    assert harivo_training.sketch_distance(video, CIRCLE).max() < 0.5
    moved = video.roll((3, 4), (-2, -1))
    torch.testing.assert_close(harivo_training.sketch_distance(moved, CIRCLE), torch.full((6,), 5.0), atol=0.5, rtol=0)
    empty = draw_background(CIRCLE)[None].expand(6, -1, -1, -1)
    assert harivo_training.sketch_distance(empty, CIRCLE).isnan().all()


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before):
    after = module.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.fixture
def base():
    return tiny.small_stable_diffusion(vae=tiny.vae(latent_channels=4))


def images(base, **options):
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(base("a red circle", generator=generator, **QUICK, **options).images)


@pytest.mark.slow
def test_a_style_is_trained_into_a_lora_file_and_leaves_the_image_model_as_it_was(base, tmp_path):
    before, plain = copied(base.unet), images(base)
    losses = harivo_training.train_style(base, tmp_path, learning_rate=0.1, **FEW)
    assert len(losses) == 2 and same(base.unet, before) and torch.equal(images(base), plain)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    base.load_lora_weights(tmp_path, adapter_name="night")
    assert not torch.allclose(images(base), plain, atol=1e-4)
    base.set_adapters("night", 0.0)
    torch.testing.assert_close(images(base), plain)


@pytest.mark.slow
def test_a_sketch_control_starts_as_no_change_and_learns_beside_an_untouched_image_model(base):
    before, plain = copied(base.unet), images(base)
    picture = harivo_training.sketches([CIRCLE], 1)[:, :, 0]
    parts = {name: base.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    for steps, changes in ((0, False), (3, True)):
        control = harivo_training.train_sketch_control(base, batch_size=2, **{**FEW, "num_steps": steps})
        made = images(controlled(parts, control), image=picture)
        assert same(base.unet, before) and torch.allclose(made, plain, atol=1e-5) is not changes


def controlled(parts, control):
    pipe = StableDiffusionControlNetPipeline(
        **parts, controlnet=control, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
