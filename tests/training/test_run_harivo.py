"""The HARIVO run: what it leaves behind, that it can be stopped anywhere, and that it predicts as the pipeline does."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

import tiny
from longvid import HARIVOPipeline, LongVideoPipeline
from longvid.cli.main import main
from longvid.cli.settings import merge_settings
from longvid.modules import frame_context, image_view
from longvid.training.captioned import tokenizer_for
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer
from longvid.training.config import HARIVOSettings
from longvid.training.run import RECIPES
from longvid.training.run_harivo import changed_schedule

SMALL = [
    "checkpoint_every=1", "num_scenes=3", "num_frames=3", "batch_size=1", "num_steps=2", "optimizer.warmup_steps=1",
    "networks.motion_heads=2", "dc.queue_size=4", "reg.num_frames=1", "alignment.num_steps=2", "alignment.batch_size=2",
    "distillation.num_steps=1", "distillation.batch_size=2", "train_frame_tokens=true",
    "motions=[left,right]",
]  # fmt: skip
STEPS = [("alignment", 1), ("alignment", 2), ("distillation", 1), ("harivo", 1), ("harivo", 2)]


def records(words, **options):
    options = {key.replace("__", "."): str(value) for key, value in options.items()}
    return RECIPES["harivo"].run(merge_settings(HARIVOSettings, overrides=words, options=options))


def weights(folder):
    files = sorted(path for path in folder.glob("*/*.safetensors") if path.parent.name != "training")
    return {f"{path.parent.name}.{key}": value for path in files for key, value in load_file(path).items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An image model with the drawn world's words."""
    folder, tokenizer = tmp_path_factory.mktemp("runs") / "base", build_tokenizer()
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), tokenizer).text_model
    tiny.stable_diffusion(text_encoder=text_encoder, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A model made by one uninterrupted run of the command."""
    folder = tmp_path_factory.mktemp("runs") / "harivo"
    command = ["train", "harivo", "--base", str(base), "--output", str(folder), "--log-every", "1", "--quiet", *SMALL]
    assert main(command) == 0
    return folder


def test_the_run_leaves_a_pipeline_whose_image_model_is_the_base_bit_for_bit(base, whole):
    log = [json.loads(line) for line in (whole / "training" / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in log] == STEPS
    before, after = weights(base), weights(whole)
    for part in ("vae", "text_encoder"):
        names = [name for name in before if name.startswith(f"{part}.")]
        assert names and all(torch.equal(before[name], after[name]) for name in names)
    pipeline = LongVideoPipeline.from_pretrained(whole)
    assert isinstance(pipeline, HARIVOPipeline) and pipeline.config.window_size == 3
    assert pipeline.frame_tokens.config.smoothing == 1.0
    inside = image_view(pipeline.unet).state_dict()
    assert all(torch.equal(before[f"unet.{name}"], value) for name, value in inside.items())
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline("a red circle moving right", num_frames=4, num_inference_steps=1, output_type="pt")
    assert video.frames.shape[:2] == (1, 4)


def test_a_run_that_is_stopped_after_every_step_ends_in_the_same_weights(base, whole, tmp_path):
    steps = []
    while True:
        stopped = records(SMALL, base=base, output=tmp_path / "again")
        record = next(stopped, None)
        if record is None:
            break
        steps.append((record.stage, record.step))
        stopped.close()
    assert steps == STEPS
    first, second = weights(whole), weights(tmp_path / "again")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_harivo_model_is_trained_further_with_the_networks_that_it_has(base, whole, tmp_path):
    words = [*SMALL, "networks.tokens_per_frame=1", "networks.mapping_network=false"]
    made = list(records(words, base=whole, output=tmp_path / "further"))
    assert [(record.stage, record.step) for record in made] == STEPS[3:]
    image, before, after = weights(base), weights(whole), weights(tmp_path / "further")
    assert before.keys() == after.keys()
    inside = image_view(LongVideoPipeline.from_pretrained(tmp_path / "further").unet).state_dict()
    assert all(torch.equal(image[f"unet.{name}"], value) for name, value in inside.items())
    learned = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert learned == {"unet", "mapping_network", "frame_tokens"}
    with pytest.raises(ValueError, match="num_frames must be 3, the window of the base; got 4"):
        list(records([*words, "num_frames=4"], base=whole, output=tmp_path / "longer"))


def test_training_predicts_what_the_pipeline_predicts(whole):
    """One step of sampling without guidance and mitigation, against the objective's own line."""
    pipeline = LongVideoPipeline.from_pretrained(whole)
    pipeline.set_progress_bar_config(disable=True)
    latents, seen = torch.randn(1, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), []
    handle = pipeline.unet.register_forward_hook(lambda _m, args, kwargs, out: seen.append(out[0]), with_kwargs=True)
    options = {"guidance_scale": 1.0, "mg_scale": 0.0, "num_inference_steps": 1, "output_type": "latent"}
    pipeline("a red circle moving right", num_frames=3, latents=latents, **options)
    handle.remove()
    text, _ = pipeline.encode_prompt("a red circle moving right", do_classifier_free_guidance=False)
    sample = pipeline.mapping_network(pipeline.scheduler.scale_model_input(latents, pipeline.scheduler.timesteps[0]))
    context = frame_context(text, 3, pipeline.frame_tokens(text))
    with torch.no_grad():
        made = pipeline.unet(sample, pipeline.scheduler.timesteps[0], context).sample
    torch.testing.assert_close(seen[0], made)


@pytest.mark.slow
def test_own_videos_train_it(clips_folder, tmp_path):
    tokenizer_base = tmp_path / "base"
    words = [
        *SMALL,
        "alignment.num_steps=0",
        "distillation.num_steps=0",
        "data.height=32",
        "data.width=32",
        "ways=drawn",
    ]
    captions = [path.read_text(encoding="utf-8") for path in clips_folder.glob("*.txt")]
    tokenizer = tokenizer_for(captions)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), tokenizer).text_model
    tiny.stable_diffusion(text_encoder=text_encoder, tokenizer=tokenizer).save_pretrained(tokenizer_base)
    made = list(records(words, base=tokenizer_base, output=tmp_path / "harivo", data__path=clips_folder))
    assert [(r.stage, r.step) for r in made] == [("latents", 1), ("latents", 2), ("latents", 3), *STEPS[2:]]
    too_long = [*words, "num_frames=12"]
    with pytest.raises(ValueError, match="too short: 10 frames at the rate of training, which needs at least 12"):
        list(records(too_long, base=tokenizer_base, output=tmp_path / "other", data__path=clips_folder))


def test_the_noise_schedule_and_the_sampler_are_the_bases_unless_the_settings_say_otherwise(base):
    scheduler = DDPMScheduler(**tiny.BETAS)
    plain = changed_schedule(scheduler, HARIVOSettings())
    assert {name: plain[name] for name in tiny.BETAS} == tiny.BETAS
    changed = changed_schedule(scheduler, HARIVOSettings(beta_schedule="linear", beta_end=0.02))
    assert (changed["beta_schedule"], changed["beta_end"], changed["beta_start"]) == ("linear", 0.02, 0.00085)


@pytest.mark.slow
def test_a_saved_model_may_have_the_papers_sampler(base, tmp_path):
    words = [
        *SMALL,
        "alignment.num_steps=0",
        "distillation.num_steps=0",
        "num_steps=1",
        "scheduler=ddim",
        "networks.tokens_per_frame=0",
    ]
    list(records([*words, "networks.mapping_network=false"], base=base, output=tmp_path / "ddim"))
    pipeline = LongVideoPipeline.from_pretrained(tmp_path / "ddim")
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler" and pipeline.scheduler.config.steps_offset == 1
    assert pipeline.mapping_network is None and pipeline.frame_tokens is None
