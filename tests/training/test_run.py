"""The training runs from the command line: what they leave behind, and that they can be stopped anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPVisionModelWithProjection

import tiny
from longvid import LongVideoPipeline
from longvid.cli.main import main
from longvid.cli.settings import merge_settings
from longvid.training.config import BaseSettings
from longvid.training.run import RECIPES
from longvid.training.workspace import Workspace

SMALL_BASE = [
    "checkpoint_every=1",
    "vae.channels=[8,8,8,8]", "vae.batch_size=2", "vae.num_steps=2", "vae.crop_batches=1", "vae.normalise_frames=8",
    "clip.width=16", "clip.text_layers=1", "clip.vision_layers=1", "clip.num_frames=3", "clip.num_clips=2",
    "clip.num_steps=2",
    "unet.channels=[16,16]", "unet.heads=[2,2]", "unet.num_scenes=3", "unet.num_frames=4", "unet.batch_size=2",
    "unet.num_steps=3", "unet.optimizer.warmup_steps=1",
]  # fmt: skip
SMALL_ART_V = [
    "checkpoint_every=1", "mask_channels=[16,16]", "mask_heads=[2,2]", "num_scenes=3", "num_frames=4", "batch_size=2",
    "num_steps=2", "optimizer.warmup_steps=1",
]  # fmt: skip


def records(name, words, **options):
    """The records of a run; `data.path` is spelt `data`."""
    options = {("data.path" if key == "data" else key): str(value) for key, value in options.items()}
    recipe = RECIPES[name]
    return recipe.run(merge_settings(recipe.schema, overrides=words, options=options))


def weights(folder):
    files = sorted(path for path in Path(folder).glob("*/*.safetensors") if path.parent.name != "training")
    return {f"{path.parent.name}.{key}": value for path in files for key, value in load_file(path).items()}


def same(folder, other):
    first, second = weights(folder), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model, made by one uninterrupted run of the command."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    assert main(["train", "base", "--output", str(folder), "--log-every", "1", "--quiet", *SMALL_BASE]) == 0
    return folder


def test_the_base_is_a_stable_diffusion_folder_with_its_clip(base):
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red circle", num_inference_steps=2, height=64, width=64, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)
    clip, vision = (
        CLIPModel.from_pretrained(base / "clip"),
        CLIPVisionModelWithProjection.from_pretrained(base / "image_encoder"),
    )
    ids = pipeline.tokenizer("a red circle", return_tensors="pt").input_ids
    assert torch.equal(clip.text_model(ids).last_hidden_state, pipeline.text_encoder(ids).last_hidden_state)
    embedded = clip.visual_projection(clip.vision_model(image).pooler_output)
    torch.testing.assert_close(vision(image).image_embeds, embedded)


def test_the_log_tells_every_stage(base):
    lines = [json.loads(line) for line in (base / "training" / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("vae", 1), ("vae", 2), ("clip", 1), ("clip", 2), ("unet", 1), ("unet", 2), ("unet", 3)
    ]  # fmt: skip
    assert all({"loss", "learning_rate"} <= line.keys() for line in lines)


def test_a_run_that_is_stopped_after_every_step_ends_in_the_same_weights(base, tmp_path):
    steps = []
    while True:
        stopped = records("base", SMALL_BASE, output=tmp_path / "again")
        record = next(stopped, None)
        if record is None:
            break
        steps.append((record.stage, record.step))
        stopped.close()
    assert steps == [("vae", 1), ("vae", 2), ("clip", 1), ("clip", 2), ("unet", 1), ("unet", 2), ("unet", 3)]
    assert same(tmp_path / "again", base)


def test_the_unet_of_a_base_is_trained_further_with_its_vae_and_clip(base, tmp_path):
    words, output = [*SMALL_BASE, "unet.min_weight=0.2", "unet.num_steps=2"], tmp_path / "further"
    stopped = records("base", words, base=base, output=output)
    next(stopped)
    stopped.close()
    assert [(r.stage, r.step) for r in records("base", words, base=base, output=output)] == [("unet", 2)]
    before, after = weights(base), weights(output)
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet"}
    with pytest.raises(ValueError, match="'longvid/art-v-tiny' has no clip"):
        next(records("base", words, base="longvid/art-v-tiny", output=tmp_path / "other"))


def test_art_v_grows_from_the_base_and_can_be_stopped(base, tmp_path):
    output = tmp_path / "art-v"
    stopped = records("art-v", SMALL_ART_V, base=base, output=output)
    next(stopped)
    stopped.close()
    assert not (output / "model_index.json").exists()
    assert [r.step for r in records("art-v", SMALL_ART_V, base=base, output=output)] == [2]
    list(records("art-v", SMALL_ART_V, base=base, output=tmp_path / "whole"))
    assert same(output, tmp_path / "whole")
    pipeline = LongVideoPipeline.from_pretrained(output)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        "a red circle moving right", num_frames=2, num_inference_steps=1, height=64, width=64, output_type="pt"
    )
    assert pipeline.config.static_noise == "scaled"
    assert video.frames.shape[:2] == (1, 2)


def test_the_unet_of_a_base_starts_from_that_inside_of_art_v(base, tmp_path):
    art_v, words = tmp_path / "art-v", [*SMALL_BASE, "unet.num_steps=1", "unet.optimizer.learning_rate=0"]
    list(records("art-v", SMALL_ART_V, base=base, output=art_v))
    list(records("base", [*words, f"unet_from={art_v}"], base=base, output=tmp_path / "taken"))
    grown, taken = weights(art_v), weights(tmp_path / "taken")
    unet = {name for name in taken if name.startswith("unet.")}
    assert unet and all(torch.equal(taken[name], grown[name]) for name in unet)
    assert any(not torch.equal(taken[name], weights(base)[name]) for name in unet)
    wrong = {"no-art-v": (base, "unet_from must be an ART-V model"), "large": ("longvid/art-v-tiny", "not grown from")}
    for folder, (name, problem) in wrong.items():
        with pytest.raises(ValueError, match=problem):
            next(records("base", [*words, f"unet_from={name}"], base=base, output=tmp_path / folder))
    with pytest.raises(ValueError, match="unet_from goes with base"):
        next(records("base", [*words, f"unet_from={art_v}"], output=tmp_path / "none"))


def test_an_art_v_model_is_trained_further_with_the_networks_that_it_has(base, tmp_path):
    first = tmp_path / "first"
    list(records("art-v", SMALL_ART_V, base=base, output=first))
    again = tmp_path / "again"
    further = [*SMALL_ART_V, "mask_channels=[32,32]", "min_weight=0.2", "motion_weights.circling=2"]
    list(records("art-v", further, base=first, output=again))
    before, after = weights(first), weights(again)
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", "mask_network"}
    with pytest.raises(ValueError, match="static_noise must be 'scaled', as in the base; got 'ref_minus_noisy'"):
        next(records("art-v", [*SMALL_ART_V, "static_noise=ref_minus_noisy"], base=first, output=tmp_path / "other"))


def test_own_videos_train_every_stage(clips_folder, tmp_path):
    words = [*SMALL_BASE, "data.height=32", "data.width=32"]
    stages = [r.stage for r in records("base", words, data=clips_folder, output=tmp_path / "base")]
    assert list(dict.fromkeys(stages)) == ["frames", "vae", "clip", "latents", "unet"]
    words = [*SMALL_ART_V, "data.height=32", "data.width=32"]
    made = list(records("art-v", words, data=clips_folder, base=tmp_path / "base", output=tmp_path / "art-v"))
    assert [(r.stage, r.step) for r in made] == [
        ("latents", 1),
        ("latents", 2),
        ("latents", 3),
        ("art_v", 1),
        ("art_v", 2),
    ]
    assert LongVideoPipeline.from_pretrained(tmp_path / "art-v").tokenizer.model_max_length == 77


def test_other_settings_do_not_go_on_with_a_run(base, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    with pytest.raises(ValueError, match=r"holds a run with unet.batch_size=2; got unet.batch_size=4"):
        next(records("base", [*SMALL_BASE, "unet.batch_size=4"], output=copy))
    assert list(records("base", [*SMALL_BASE, "unet.num_steps=2"], output=copy)) == []


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main(["train", "base"]) == 1
    assert "set output (--output FOLDER)" in capsys.readouterr().err
    assert main(["train", "base", "--output", str(tmp_path), "--data", str(tmp_path / "none")]) == 1
    assert "there is nothing at" in capsys.readouterr().err
    assert main(["train", "bass", "--output", str(tmp_path)]) == 2
    assert "did you mean 'base'?" in capsys.readouterr().err
    assert main(["train", "base", "--base", "x", "--output", str(tmp_path / "other")]) == 1
    assert "'x' has no clip" in capsys.readouterr().err


def test_what_a_run_has_kept_stays_as_it_is(tmp_path):
    """Every process keeps; one that comes late must neither overwrite nor skip the others' meeting."""
    work = Workspace(tmp_path, BaseSettings())
    first, second = (tiny.unet(cross_attention_dim=width) for width in (8, 16))
    for unet in (first, second):
        work.keep("unet", unet=unet)
    kept = load_file(work.model("unet") / "unet" / "diffusion_pytorch_model.safetensors")
    assert kept.keys() == first.state_dict().keys()
    assert all(torch.equal(kept[name], value) for name, value in first.state_dict().items())
