"""The experiments on ART-V, with tiny networks of random weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

import tiny
from longvid.pipelines.art_v import ARTVPipeline
from longvid.reproduce import EXPERIMENTS, Setup, Size, Variant, reproduce
from longvid.reproduce.art_v_bench import ARTVBench, MaskBench, MitigatedBench
from longvid.reproduce.art_v_trained import FULL, NO_ANCHOR, NO_MASK, Trained
from longvid.reproduce.art_v_training import BlankAnchorARTVPipeline, TrainedBench
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.run import measure_missing
from longvid.reproduce.video_measures import DRIFT_MEASURES, directed_scenes, read_videos
from longvid.sprites import draw

SMALL = Size(num_prompts=1, num_seeds=1, num_frames=9)
BENCHES = {
    "art-v-noise-augmentation": (ARTVBench, ("level-550", "drawn")),
    "art-v-mask-strength": (MaskBench, ("8-steps",)),
    "mitigated-art-v": (MitigatedBench, ("scale-5",)),
}
QUICK = {"num_inference_steps": 1, "guidance_scale": 1.0, "reference_guidance_scale": 0.0, "anchor_guidance_scale": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "art-v"
    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    tiny.art_v(call_defaults=QUICK, scheduler=scheduler).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", BENCHES)
def test_an_experiment_runs_on_tiny_networks(name, model, tmp_path):
    kind, names = BENCHES[name]
    experiment = EXPERIMENTS[name]
    variants = tuple(experiment.variant(one) for one in names)
    if kind is MaskBench:
        variants = tuple(replace(variant, how={"num_inference_steps": 2}) for variant in variants)
    experiment = replace(experiment, variants=variants)
    setup = Setup(SMALL)
    bench = kind(setup, model)
    file = MeasurementFile(tmp_path / "file.jsonl", name, bench.settings)
    measure_missing(experiment, setup, bench, file)
    measured = {measure.name for measure in experiment.measures}
    assert [key[0] for key in file.measured] == list(names)
    for one in file.measured.values():
        assert set(one.values) == measured and set(one.curves) == set(experiment.curves)
        assert all(value is None or math.isfinite(value) for value in one.values.values())


def test_drawn_videos_are_read_as_right_and_hardly_drift():
    scenes = directed_scenes(range(4))
    assert {scene.sprites[0].motion for scene in scenes} == {"left", "right", "up", "down"}
    assert {scene.split for scene in scenes} == {"held_out"}
    for row in read_videos(scenes, draw(scenes, 20)):
        assert set(row) == {measure.name for measure in DRIFT_MEASURES}
        assert all(row[name] == 1 for name in ("direction", "color", "present", "background"))
        assert row["background_drift"] < 1 and row["contrast_drift"] < 3 and row["flicker"] > 0


def test_videos_too_short_to_be_read_are_refused(model):
    with pytest.raises(ValueError, match="num_frames must be at least 9 here; got 8"):
        ARTVBench(Setup(replace(SMALL, num_frames=8)), model)


@pytest.mark.slow
def test_a_scale_of_zero_is_plain_art_v(model):
    setup, scenes = Setup(SMALL), directed_scenes([0])
    bench, first = MitigatedBench(setup, model), draw(scenes, 1)[:, :, 0]
    plain, zero = (
        made.make(Variant("v", "v", how), scenes, first, prompts=[0], seed=0).frames
        for made, how in ((ARTVBench(setup, model), {}), (bench, 0))
    )
    assert torch.equal(plain, zero)
    assert bench.pipeline(Variant("v", "v", 5), 0).scale == 5.0


def test_a_blank_anchor_hides_the_anchor(model):
    pipe = BlankAnchorARTVPipeline.from_pretrained(model)
    context = {name: torch.randn(1, 8, 8, 8) for name in ("newest", "older", "anchor")}
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    frames = pipe._noisy_frames(context, 30, *generators)
    assert not frames.anchor.any() and frames.newest.any() and torch.equal(frames.clean, context["newest"])


@pytest.mark.slow
def test_models_are_trained_once_from_one_start_with_and_without_a_part(tmp_path):
    settings = {
        "num_scenes": 3,
        "num_frames": 4,
        "batch_size": 2,
        "checkpoint_every": 1,
        "mask_channels": (16, 16),
        "mask_heads": (2, 2),
    }  # noqa: E501
    bench = TrainedBench(Setup(replace(SMALL, training_steps=2), tmp_path), settings=settings)
    folders = [bench.train(training, 0) for training in (FULL, NO_MASK, NO_ANCHOR)]
    full, no_mask = (
        bench.load(ARTVPipeline, str(bench.folder / f"art-v-{n}-start-seed-0")) for n in ("full", "no-mask")
    )
    assert no_mask.mask_network is None and full.mask_network is not None
    assert full.fingerprint()["unet"] == no_mask.fingerprint()["unet"]
    stamp = (folders[0] / "model_index.json").stat().st_mtime_ns
    assert bench.train(FULL, 0) == folders[0] and (folders[0] / "model_index.json").stat().st_mtime_ns == stamp
    off = Variant("off", "off", Trained(FULL, without=("mask_network",)))
    assert bench.pipeline(off, 0).mask_network is None
    blank = Variant("blank", "blank", Trained(NO_ANCHOR, anchor="blank"))
    assert isinstance(bench.pipeline(blank, 0), BlankAnchorARTVPipeline)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["art-v-mask", "art-v-anchor"])
def test_an_experiment_that_trains_runs(name, tmp_path):
    settings = {"num_scenes": 3, "num_frames": 4, "batch_size": 2}
    experiment = replace(EXPERIMENTS[name], bench=lambda setup: TrainedBench(setup, settings=settings))
    said = []
    page = reproduce(
        experiment, tmp_path, Setup(replace(SMALL, training_steps=2), tmp_path / "models", say=said.append)
    )
    assert all(f"| {variant.label} |" in page.read_text() for variant in experiment.variants)
    assert any("step 2/2" in line for line in said)
