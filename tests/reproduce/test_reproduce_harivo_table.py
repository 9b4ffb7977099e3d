"""HARIVO's Table 1 on tiny networks: what its rows share, and that they are trained once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

import tiny
from longvid.reproduce import EXPERIMENTS, Setup, Size, reproduce
from longvid.reproduce.harivo_trained import STEPS, TABLE_1, TOKENS
from longvid.reproduce.harivo_training import TrainedHARIVOBench, row_settings
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer
from longvid.training.harivo_networks import build_networks

ROWS = [variant.how for variant in TABLE_1.variants if variant.how]
SMALL = {
    "num_scenes": 3, "num_frames": 9, "batch_size": 1, "checkpoint_every": 1, "motions": ["left", "right"],
    "networks": {"motion_heads": 2}, "dc": {"queue_size": 4}, "reg": {"num_frames": 1}, "optimizer": {"warmup_steps": 1},
    "call_defaults": {"num_inference_steps": 1},
}  # fmt: skip


def plain(settings):
    return OmegaConf.to_container(OmegaConf.structured(settings))


def differences(first, second, prefix=""):
    """Dotted names of the settings in which two differ."""
    for name, value in first.items():
        if isinstance(value, dict):
            yield from differences(value, second[name], f"{prefix}{name}.")
        elif value != second[name]:
            yield f"{prefix}{name}"


def test_each_row_adds_one_part_to_the_one_before_and_mitigation_is_no_training():
    added = {
        better: set(differences(*(plain(row_settings(f"harivo-tiny-{name}")) for name in (better, worse))))
        for better, worse in STEPS
    }
    assert added == {
        "losses": {"trs.weight", "dc.weight"},
        "mapping": {"networks.mapping_network", "reg.weight"},
        "tokens": {"networks.tokens_per_frame"},
        "mitigating": {"call_defaults.mg_scale"},
    }
    assert {row.training or row.config for row in ROWS} == {
        f"harivo-tiny-{name}" for name in ("baseline", "losses", "mapping", "tokens")
    }
    changed = row_settings(TOKENS, {"networks": {"motion_heads": 2}, "num_steps": 7})
    assert changed.networks.motion_heads == 2 and changed.networks.tokens_per_frame == 3 and changed.num_steps == 7


def test_the_temporal_layers_of_all_rows_start_from_the_same_weights():
    started = []
    for name in ("baseline", "tokens"):
        options = row_settings(f"harivo-tiny-{name}", SMALL).networks
        torch.manual_seed(3)
        started.append(build_networks(options, tiny.unet(), 9, 12).unet.state_dict())
    assert all(torch.equal(started[0][name], started[1][name]) for name in started[0])


@pytest.mark.slow
def test_the_rows_are_trained_once_and_make_videos(tmp_path):
    base, tokenizer = tmp_path / "base", build_tokenizer()
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), tokenizer).text_model
    tiny.stable_diffusion(text_encoder=text_encoder, tokenizer=tokenizer).save_pretrained(base)
    said = []
    size = Size(num_prompts=1, num_seeds=1, num_frames=9, training_steps=2)
    setup = Setup(size, tmp_path / "models", say=said.append)
    experiment = replace(EXPERIMENTS["harivo-table-1"], bench=lambda setup: TrainedHARIVOBench(setup, str(base), SMALL))
    page = reproduce(experiment, tmp_path, setup)
    assert all(f"| {variant.label} |" in page.read_text() for variant in experiment.variants)
    assert [line for line in said if line.startswith("training")] == [
        f"training harivo-tiny-{name}-2-steps-seed-0" for name in ("baseline", "losses", "mapping", "tokens")
    ]
    bench, variant = TrainedHARIVOBench(setup, str(base), SMALL), experiment.variant
    assert (bench.call(variant("mitigating"))["mg_scale"], bench.call(variant("tokens"))["mg_scale"]) == (40.0, 0.0)
    assert bench.call(variant("mitigating-5")).items() >= {"mg_scale": 5.0, "mg_max_ratio": 1.0}.items()
    assert bench.pipeline(variant("baseline"), 0).mapping_network is None
    tokens = bench.pipeline(variant("tokens"), 0)
    assert tokens is bench.pipeline(variant("mitigating"), 0) is bench.pipeline(variant("mitigating-5"), 0)
    assert tokens.frame_tokens is not None and tokens.mapping_network is not None
    said.clear()
    reproduce(experiment, tmp_path, setup)
    assert said == ["harivo-table-1: all is measured"]
