"""The recipes of the built-in world: tokenizer, autoencoder, latents, reversed time, and that ART-V learns."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

import tiny
from longvid.modules.masked_diffusion import STATIC_NOISES
from longvid.samplers import add_noise, from_x0
from longvid.sprites import Scene, Sprite, caption_clip, draw, read, vocabulary
from longvid.training.art_v import ARTVObjective, ARTVRecipe, art_v_batches, build_networks
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer, tokenize
from longvid.training.latents import REVERSIBLE, latent_cache, reverse_time, training_scenes
from longvid.training.loop import OptimizerOptions, train
from longvid.training.unet import UNetObjective, UNetRecipe, build_scheduler, loss_weight, unet_batches
from longvid.training.vae import VAERecipe, build_vae, fold_normalisation
from longvid.video.codec import encode_video


def test_every_word_of_the_world_is_one_token():
    tokenizer = build_tokenizer()
    assert [word for word in vocabulary() if len(tokenizer(word).input_ids) != 3] == []
    assert tokenizer("red").input_ids[-1] == tokenizer.eos_token_id == len(tokenizer) - 1


def test_a_caption_that_is_too_long_is_an_error():
    with pytest.raises(ValueError, match="at most 30 tokens; .* has 31"):
        tokenize(build_tokenizer(), ["red", "red " * 31])


def test_folding_leaves_the_decoded_picture_and_makes_latents_standard():
    torch.manual_seed(0)
    vae = build_vae(VAERecipe(channels=(8, 8, 8, 8))).eval()
    frames = draw(training_scenes(24, 0, ("left",)), 1)[:, :, 0] * 2 - 1
    with torch.no_grad():
        before, deviation = vae.encode(frames).latent_dist.mean, vae.encode(frames).latent_dist.std
        picture = vae.decode(before).sample
        fold_normalisation(vae, frames)
        latents = vae.encode(frames).latent_dist
        torch.testing.assert_close(vae.decode(latents.mean).sample, picture, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latents.mean.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.mean.std((0, 2, 3)), torch.ones(8), rtol=1e-3, atol=1e-3)
    scale = before.std((0, 2, 3))[:, None, None]
    torch.testing.assert_close(latents.std * scale, deviation, rtol=1e-3, atol=1e-5)


def test_cached_latents_are_those_of_the_vae_and_follow_scenes_and_weights(tmp_path):
    vae, scenes, path = tiny.vae(), training_scenes(3, 0, ("left", "still")), tmp_path / "latents.safetensors"
    latents = latent_cache(path, vae, scenes, 4)
    with torch.no_grad():
        expected = encode_video(vae, draw(scenes, 4) * 2 - 1).transpose(1, 2).half()
    torch.testing.assert_close(latents, expected)
    written = path.stat().st_mtime_ns
    assert torch.equal(latent_cache(path, vae, scenes, 4), latents)
    assert path.stat().st_mtime_ns == written
    assert not torch.equal(latent_cache(path, tiny.vae(seed=1), scenes, 4), latents)
    assert latent_cache(path, vae, scenes[:2], 4).shape[0] == 2


@pytest.mark.parametrize("motion", ["left", "right", "up", "down", "breathing", "still"])
def test_a_video_backwards_is_what_the_reversed_scene_says(motion):
    scene = Scene("gray", "solid", (Sprite("square", "red", "medium", motion, "normal", 30.0, 34.0),))
    backwards = reverse_time(scene)
    assert read(draw(scene, 16)[0].flip(1)).sprites[0].motion == backwards.sprites[0].motion
    assert reverse_time(backwards) == scene
    assert motion in REVERSIBLE and caption_clip(backwards) != "" and backwards.sprites[0].color == "red"


def test_motions_that_have_no_words_backwards_are_not_reversed():
    for motion in ("circling", "spinning", "passing left"):
        assert (
            reverse_time(Scene("gray", "solid", (Sprite("square", "red", "medium", motion, "normal", 30.0, 34.0),)))
            is None
        )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_weighted_error_of_the_prediction_is_the_limited_error_of_the_clean_estimate(prediction_type):
    scheduler, t = build_scheduler(prediction_type=prediction_type), torch.tensor([0, 300, 600, 999])
    clean, noise, guess = torch.randn(3, 4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noisy = add_noise(clean, noise, t, scheduler)
    implied, true = (from_x0(x0, noisy, t, scheduler) for x0 in (guess, clean))
    weighted = (implied - true).square().mean((1, 2, 3)) * loss_weight(scheduler, t, 5.0)
    snr = scheduler.alphas_cumprod[t].double() / (1 - scheduler.alphas_cumprod[t].double())
    limited = (snr + (prediction_type == "v_prediction")).clamp(max=5.0)
    torch.testing.assert_close(weighted, limited * (guess - clean).square().mean((1, 2, 3)), rtol=1e-3, atol=0)
    assert loss_weight(scheduler, t, float("inf")).eq(1).all()
    floored = (implied - true).square().mean((1, 2, 3)) * loss_weight(scheduler, t, 5.0, min_weight=0.2)
    error = (guess - clean).square().mean((1, 2, 3))
    torch.testing.assert_close(floored, (snr + 0.2).clamp(max=5.0) * error, rtol=1e-3, atol=0)


def toy_art_v(static_noise, **changes):
    """The paper's recipe at toy size: C0 = 32, one layer per block, latents of drawn clips."""
    torch.manual_seed(0)
    recipe = ARTVRecipe(static_noise=static_noise, batch_size=6, mask_channels=(16, 16), mask_heads=(2, 2), **changes)
    tokenizer = build_tokenizer()
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH), tokenizer).text_model
    scenes = training_scenes(12, 0, ("left", "right", "still", "circling"))
    latents = 3 * torch.nn.functional.avg_pool3d(draw(scenes, 6) * 2 - 1, (1, 4, 4)).transpose(1, 2)
    unet = tiny.unet(in_channels=3, out_channels=3, sample_size=16, block_out_channels=(32, 32))
    networks = build_networks(recipe, unet)
    scheduler = DDPMScheduler(**tiny.BETAS, clip_sample=False)
    objective = ARTVObjective(*networks, scheduler, recipe, text_encoder, tokenize(tokenizer, [""])[0])
    return objective, art_v_batches(recipe, latents, scenes, tokenizer)


@pytest.mark.parametrize(
    "static_noise", [pytest.param(kind, marks=[] if kind == "scaled" else pytest.mark.slow) for kind in STATIC_NOISES]
)
def test_art_v_learns_and_its_mask_stays_open(static_noise):
    objective, batches = toy_art_v(static_noise, second_frames=0.2)
    options = OptimizerOptions(learning_rate=2e-3, lr_schedule="constant", ema_decay=0.0)

    @torch.no_grad()
    def unseen_loss():
        draws = [(batches(1000 + index), torch.Generator().manual_seed(index)) for index in range(6)]
        return sum(objective(batch, generator)["loss"].item() for batch, generator in draws)

    before = unseen_loss()
    records = list(train(objective, batches, options, num_steps=14))
    assert unseen_loss() < 0.8 * before
    assert all(0 < record.metrics["mask"] < 1 for record in records)


def test_no_clip_runs_backwards_into_a_combination_that_is_held_out():
    recipe = ARTVRecipe(batch_size=256, first_frames=0, second_frames=0)
    scenes = [scene for scene in training_scenes(300, 0, ("left", "right")) if reverse_time(scene).split == "held_out"]
    latents = torch.arange(6.0)[:, None, None, None].expand(len(scenes), 6, 1, 1, 1)
    batch = art_v_batches(recipe, latents, scenes, build_tokenizer())(0)
    assert len(scenes) > 3
    assert torch.equal(batch["target"][:, 0, 0, 0] - batch["references"][:, 0, 0, 0, 0], torch.ones(256))


def test_clips_of_a_motion_come_up_as_often_as_its_weight_says():
    scenes = training_scenes(40, 0, ("left", "circling", "still"))
    kinds = torch.tensor([["left", "circling", "still"].index(scene.sprites[0].motion) for scene in scenes])
    latents = kinds[:, None, None, None, None].float().expand(-1, 6, 1, 1, 1)
    recipe = ARTVRecipe(batch_size=4096, motion_weights={"circling": 3.0, "still": 0.0})
    targets = art_v_batches(recipe, latents, scenes, build_tokenizer())(0)["target"].flatten()
    counts = kinds.bincount(minlength=3)
    expected = 3 * counts[1] / (3 * counts[1] + counts[0])
    assert not targets.eq(2).any()
    assert abs(targets.eq(1).float().mean() - expected) < 4 * (expected * (1 - expected) / 4096).sqrt()


def test_gradient_checkpointing_changes_memory_and_not_the_training():
    tokenizer, scenes = build_tokenizer(), training_scenes(4, 0, ("left",))
    latents, finals = torch.randn(4, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for checkpointing in (False, True):
        recipe = UNetRecipe(batch_size=2)
        torch.manual_seed(0)
        text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH), tokenizer).text_model
        objective = UNetObjective(tiny.unet(), text_encoder, build_scheduler(), recipe)
        options = OptimizerOptions(ema_decay=0.0, warmup_steps=0, gradient_checkpointing=checkpointing)
        list(train(objective, unet_batches(recipe, latents, scenes, tokenizer), options, num_steps=1))
        assert objective.unet.is_gradient_checkpointing == checkpointing
        finals.append(torch.cat([parameter.detach().flatten() for parameter in objective.unet.parameters()]))
    torch.testing.assert_close(*finals, rtol=0, atol=1e-5)
