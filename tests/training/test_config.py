"""The settings of the training runs, and the networks at paper size that the configs that ship describe."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from transformers import CLIPTokenizer

from longvid.cli.settings import merge_settings
from longvid.cli.train import find_config, shipped_configs
from longvid.modules import count_parameters
from longvid.training.art_v import build_networks
from longvid.training.clip import build_clip
from longvid.training.config import ARTVSettings, BaseSettings, HARIVOSettings, check_art_v, check_base
from longvid.training.unet import build_unet
from longvid.training.vae import build_vae

SCHEMAS = {"base": BaseSettings, "art-v": ARTVSettings, "harivo": HARIVOSettings}


def shipped(name):
    return merge_settings(SCHEMAS[name.rsplit("-", 1)[0]], file=find_config(name))


def test_a_tiny_and_a_paper_size_config_ship_for_each_run():
    for recipe in ("art-v", "base", "harivo", "streaming-t2v", "video-base"):
        assert {f"{recipe}-paper", f"{recipe}-tiny"} <= set(shipped_configs())


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_tiny_config_is_the_default(name):
    assert shipped(f"{name}-tiny") == SCHEMAS[name]()


def test_the_second_half_of_the_tiny_training_differs_from_the_first_as_its_file_says():
    first, second = ARTVSettings(), merge_settings(ARTVSettings, file=find_config("art-v-tiny-further"))
    changed = {
        field.name for field in fields(ARTVSettings) if getattr(first, field.name) != getattr(second, field.name)
    }
    assert changed == {"base", "num_steps", "min_weight", "motion_weights", "optimizer"}


def test_a_power_that_would_prefer_weak_noise_is_refused():
    with pytest.raises(ValueError, match="timestep_power must be at least 0; got -0.5"):
        check_art_v(merge_settings(ARTVSettings, overrides=["timestep_power=-0.5"]))


def test_motion_weights_of_a_motion_that_does_not_exist_are_refused():
    with pytest.raises(ValueError, match="motion_weights are numbers of at least 0 for left, right, .*'hopping': 2.0"):
        check_art_v(merge_settings(ARTVSettings, overrides=["motion_weights.hopping=2"]))


def test_the_base_at_paper_size_has_the_parameters_of_stable_diffusion():
    settings = shipped("base-paper")
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate([*(f"t{number}" for number in range(49406)), *special])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    with torch.device("meta"):
        vae, clip = build_vae(settings.vae), build_clip(settings.clip, tokenizer)
        unet = build_unet(settings.unet, settings.vae.latent_channels, settings.clip.width)
    assert count_parameters(vae) == 83_653_863
    assert count_parameters(unet) == 865_910_724
    assert count_parameters(clip.text_model) == 340_387_840
    assert count_parameters(clip) == 340_387_840 + 632_076_800 + 1024**2 + 1  # OpenCLIP's ViT-H image tower


def test_art_v_at_paper_size_has_the_parameters_of_the_paper():
    settings, base = shipped("art-v-paper"), shipped("base-paper")
    with torch.device("meta"):
        unet, mask_network = build_networks(settings, build_unet(base.unet, 4, 1024))
    assert (count_parameters(unet), count_parameters(mask_network)) == (1_167_668_804, 51_178_113)


def test_the_papers_recipe_is_the_papers():
    settings = shipped("art-v-paper")
    optimizer = settings.optimizer
    assert settings.batch_size * optimizer.gradient_accumulation_steps * 4 == 480
    assert (optimizer.learning_rate, optimizer.lr_schedule, optimizer.ema_decay) == (1e-5, "constant", 0.9999)
    assert (settings.num_steps, settings.noise_level_max, settings.anchor_window) == (258_000, 550, 10)
    assert (settings.drop_references, settings.drop_anchor, settings.drop_text) == (0.1, 0.1, 0.1)
    assert settings.call_defaults["num_inference_steps"] == 50 and settings.call_defaults["guidance_scale"] == 7.5
    assert (settings.static_noise, settings.anchor_pos, settings.max_weight) == (
        "ref_minus_noisy",
        "none",
        float("inf"),
    )


@pytest.mark.parametrize(
    ("name", "word", "problem"),
    [
        ("base", "unet.chanels=[8]", r"unknown option 'unet.chanels'; did you mean 'unet.channels'\?"),
        ("art-v", "optimizer.learning_rat=1", r"did you mean 'optimizer.learning_rate'\?"),
        ("art-v", "num_steps=many", "num_steps"),
        ("art-v", "drop_text=[1]", "drop_text"),
    ],
)
def test_a_wrong_key_or_type_is_refused(name, word, problem):
    with pytest.raises(ValueError, match=problem):
        merge_settings(SCHEMAS[name], overrides=[word])


@pytest.mark.parametrize(
    ("name", "word", "problem"),
    [
        ("base", "data.height=128", r"the drawn world is 64 x 64 at 8 .* set data.path"),
        ("base", "vae.num_steps=0", "vae.num_steps must be at least 1; got 0"),
        ("base", "data.min_frames=2", "data.min_frames must be at least 5; got 2"),
        ("base", "clip.tokenizer=some", "goes with your own data"),
        ("art-v", "drop_text=1.5", r"drop_text is a share of the samples, in \[0, 1\]; got 1.5"),
    ],
)
def test_settings_that_cannot_work_together_are_found_before_the_work(name, word, problem):
    settings = merge_settings(SCHEMAS[name], overrides=[word])
    with pytest.raises(ValueError, match=problem):
        {"base": check_base, "art-v": check_art_v}[name](settings)
