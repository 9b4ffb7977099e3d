"""CAM against its alternatives on tiny networks: what their trainings share, and that each is made once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

import tiny
from longvid.modules.conditional_attention import ConditionalAttentionModule
from longvid.modules.conditioning_ablations import AddedConditioning, ConcatenatedConditioning
from longvid.reproduce import EXPERIMENTS, Setup, Size, reproduce
from longvid.reproduce.streaming_t2v_trained import CAM, Conditioning
from longvid.reproduce.streaming_t2v_training import TrainedStreamingBench, grown, scene_cuts
from longvid.reproduce.video_measures import directed_scenes
from longvid.sprites import draw
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer

SIZE = Size(num_prompts=1, num_seeds=1, num_frames=9, training_steps=2)
STAGE = {"optimizer": {"warmup_steps": 1, "ema_decay": 0.0}}
SMALL = {
    "num_scenes": 3, "chunk_size": 6, "overlap": 2, "anchor_window": 2, "batch_size": 1, "checkpoint_every": 1,
    "frame_encoder_widths": [4, 4, 8, 8], "call_defaults": {"num_inference_steps": 1}, "cam": STAGE, "apm": STAGE,
}  # fmt: skip
KINDS = {
    "cam": ConditionalAttentionModule, "cam-awake": ConditionalAttentionModule, "added": AddedConditioning,
    "concatenated": ConcatenatedConditioning,
    "concatenated-unet": ConcatenatedConditioning,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A text-to-video model, saved as an enhancer."""
    folder, tokenizer = tmp_path_factory.mktemp("model") / "enhancer", build_tokenizer()
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), tokenizer).text_model
    tiny.enhancer(vae=tiny.vae(latent_channels=4), tokenizer=tokenizer, text_encoder=text_encoder).save_pretrained(
        folder
    )
    return str(folder)


def plain(settings):
    return OmegaConf.to_container(OmegaConf.structured(settings))


def test_all_modules_are_trained_by_the_same_recipe(base, tmp_path):
    bench = TrainedStreamingBench(Setup(SIZE, tmp_path), base, SMALL)
    cam, added, unet = (
        plain(bench.recipe_settings(CAM.variant(name).how, 7)) for name in ("cam", "added", "concatenated-unet")
    )
    assert cam == added
    assert cam["cam"] == unet["apm"] and (cam["cam"]["num_steps"], cam["cam"]["seed"], cam["seed"]) == (2, 7, 7)
    assert cam["apm"]["num_steps"] == unet["cam"]["num_steps"] == 0
    assert cam["image_encoder"] is None and cam["base"] == base
    assert {name: value for name, value in cam.items() if name not in ("cam", "apm")} == {
        name: value for name, value in unet.items() if name not in ("cam", "apm")
    }
    awake = plain(bench.recipe_settings(CAM.variant("cam-awake").how, 7))
    assert (awake.pop("awake_start"), cam.pop("awake_start")) == (True, False) and awake == cam
    module = grown(Conditioning("added"), bench.recipe_settings(Conditioning("added"), 0)).cam
    assert isinstance(module, AddedConditioning) and module.config["frame_encoder_widths"] == (4, 4, 8, 8)


def test_only_the_awake_start_attends_to_the_frame_itself(base, tmp_path):
    bench, weights = TrainedStreamingBench(Setup(SIZE, tmp_path), base, SMALL), {}
    for name in ("cam", "cam-awake"):
        how = CAM.variant(name).how
        weights[name] = grown(how, bench.recipe_settings(how, 0)).cam.mid_merger.attention.to_q.weight
    identity = torch.eye(len(weights["cam"]))
    assert torch.equal(weights["cam-awake"], identity) and not torch.equal(weights["cam"], identity)


def test_a_splice_is_a_scene_cut_and_a_moving_sprite_is_none():
    first, second = draw(directed_scenes([0, 5]), 40)
    assert scene_cuts(first) == 0
    assert scene_cuts(torch.cat([first[:, :20], 1 - second[:, 20:]], dim=1)) == 1


@pytest.mark.slow
def test_new_modules_of_all_kinds_make_the_same_video(base, tmp_path):
    bench, scenes = TrainedStreamingBench(Setup(SIZE, tmp_path), base, SMALL), directed_scenes([0])
    frames = []
    for kind in ("attended", "added", "concatenated"):
        variant = replace(CAM.variant("none"), how=Conditioning(kind, learns=None))
        frames.append(bench.make(variant, scenes, prompts=[0], seed=0, output_type="pt").frames)
    assert all(torch.equal(frames[0], other) for other in frames[1:])


@pytest.mark.slow
def test_the_modules_are_trained_once_and_make_videos(base, tmp_path):
    said = []
    setup = Setup(SIZE, tmp_path / "models", say=said.append)
    experiment = replace(
        EXPERIMENTS["streaming-t2v-cam"], bench=lambda setup: TrainedStreamingBench(setup, base, SMALL)
    )
    page = reproduce(experiment, tmp_path, setup)
    assert all(f"| {variant.label} |" in page.read_text() for variant in experiment.variants)
    assert [line for line in said if line.startswith("training")] == [
        f"training streaming-t2v-{name}-2-steps-seed-0"
        for name in ("attended", "attended-awake", "added", "concatenated", "concatenated-unet")
    ]
    bench, variant = TrainedStreamingBench(setup, base, SMALL), experiment.variant
    pipes = {name: bench.pipeline(variant(name), 0) for name in KINDS}
    assert all(isinstance(pipes[name].cam, kind) and pipes[name].apm is None for name, kind in KINDS.items())
    untouched = bench.pipe.unet.state_dict()
    moved = {name: _moved(untouched, pipe.unet) for name, pipe in pipes.items()}
    assert not (moved["cam"] or moved["cam-awake"] or moved["added"] or moved["concatenated"])
    assert moved["concatenated-unet"] and not any("temp_" in name for name in moved["concatenated-unet"])
    assert all(_moved(grown(variant(name).how, bench.recipe_settings(variant(name).how, 0)).cam.state_dict(), pipe.cam)
               for name, pipe in pipes.items())  # fmt: skip
    latents = bench.pipeline(variant("concatenated-latents"), 0)
    assert latents.config["context"] == "latents" and latents.cam is pipes["concatenated"].cam
    said.clear()
    reproduce(experiment, tmp_path, setup)
    assert said == ["streaming-t2v-cam: all is measured"]


def _moved(before, module):
    return [name for name, value in module.state_dict().items() if not torch.equal(before[name], value)]
