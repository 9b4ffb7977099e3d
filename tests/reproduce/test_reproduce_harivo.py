"""The experiments on HARIVO, with tiny networks of random weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tiny
from longvid import MappingNetwork
from longvid.cli.main import main
from longvid.pipelines.window_strategies import Joint
from longvid.reproduce import EXPERIMENTS, Measured, Setup, Size, Variant
from longvid.reproduce.cross_method import Joined
from longvid.reproduce.experiment import Experiment
from longvid.reproduce.figure import draw_figure
from longvid.reproduce.harivo import CAPPED, UNCAPPED, Mitigation
from longvid.reproduce.harivo_bench import HARIVOBench, MitigationBench, WindowsBench
from longvid.reproduce.joints import middle_cut, worst_joint
from longvid.reproduce.mapping_bench import MappingBench, NormalityBench, changes_of
from longvid.reproduce.page import page_text
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.report import make_report
from longvid.reproduce.run import measure_missing
from longvid.reproduce.video_measures import STEADINESS_MEASURES, directed_scenes, read_steadiness, read_videos
from longvid.sprites import draw
from longvid.sprites.draw import draw_background
from longvid.sprites.scene import SPEEDS
from longvid.video.windows import Window, fit_windows

SMALL = Size(num_prompts=1, num_seeds=1, num_frames=9)
QUICK = {"num_inference_steps": 1, "mg_scale": 5.0, "mg_max_ratio": 1.0}
NORMAL_DRAWS = 3
BENCHES = {
    "harivo-mg-scale": (MitigationBench, ("4x-uncapped", "drawn"), 9),
    "harivo-mapping-noise": (MappingBench, ("recommended", "25-steps"), 6),
    "harivo-noise-normality": (NormalityBench, ("independent", "mixed-1", "progressive-2", "shared", "mapped"), 9),
    "harivo-windows": (WindowsBench, ("joint-middle", "drawn"), 9),
}


def loaded(folder, **changes):
    """Save a tiny pipeline."""
    tiny.harivo(**{"call_defaults": QUICK, **changes}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("model") / "harivo")


def bench_of(kind, setup, model):
    return kind(setup, model, NORMAL_DRAWS) if kind is NormalityBench else kind(setup, model)


@pytest.mark.parametrize("name", BENCHES)
def test_a_harivo_experiment_runs_on_tiny_networks(name, model, tmp_path):
    kind, names, num_frames = BENCHES[name]
    experiment: Experiment = EXPERIMENTS[name]
    variants = tuple(experiment.variant(one) for one in names)
    if kind is MappingBench:
        variants = tuple(replace(variant, how={"num_inference_steps": 2}) for variant in variants)
    experiment = replace(experiment, variants=variants, expectations=())
    setup = Setup(replace(SMALL, num_frames=num_frames), model=model)
    bench = bench_of(kind, setup, None)
    file = MeasurementFile(tmp_path / "file.jsonl", name, bench.settings)
    measure_missing(experiment, setup, bench, file)
    measured = {measure.name for measure in experiment.measures}
    assert [key[0] for key in file.measured] == list(names)
    for one in file.measured.values():
        assert measured <= set(one.values) and set(one.curves) == set(experiment.curves)
        assert all(value is None or math.isfinite(value) for value in one.values.values())
    assert f"--model {model}" in page_text(make_report(experiment, setup.size, file))
    assert not list_missing(experiment, setup, bench_of(kind, setup, model), file)


def list_missing(experiment, setup, bench, file):
    """What a second run would measure: nothing, and under equal settings."""
    again = MeasurementFile(file.path, experiment.name, bench.settings)
    said = []
    measure_missing(experiment, replace(setup, say=said.append), bench, again)
    return said[1:]


# --- the mitigating gradient -----------------------------------------------------------------------------------------


def test_a_multiple_of_the_papers_scale_is_asked_for_and_no_cap_is_the_papers_formula(model):
    bench = MitigationBench(Setup(SMALL), model)
    assert (bench.scale, bench.cap) == (40.0, 1.0)
    assert bench.call(Variant("v", "v", Mitigation(4))) == {"mg_scale": 160.0, "mg_max_ratio": 1.0}
    uncapped = Variant("v", "v", Mitigation(5.0, capped=False))
    assert bench.call(uncapped) == {"mg_scale": 200.0, "mg_max_ratio": math.inf}
    bench.cap = None  # as in a model that recommends none
    assert bench.pipe.config["call_defaults"]["mg_max_ratio"] == 1.0
    scenes, options = directed_scenes([0]), {"prompts": [0], "seed": 0, "output_type": "latent", "num_frames": 6}
    made = bench.make(uncapped, scenes, **options).frames
    free = tiny.harivo(call_defaults={"num_inference_steps": 1, "mg_scale": 200.0})
    plain = HARIVOBench.make(_unloaded(HARIVOBench, free), Variant("v", "v"), scenes, **options).frames
    assert torch.equal(made, plain)


def _unloaded(kind, pipe, num_frames=9):
    """A bench around a pipeline that is there already."""
    bench = kind.__new__(kind)
    bench.setup, bench.pipe = Setup(replace(SMALL, num_frames=num_frames)), pipe
    return bench


def test_two_series_of_a_sweep_are_two_curves(tmp_path):
    experiment = EXPERIMENTS["harivo-mg-scale"]
    experiment = replace(experiment, expectations=(), measures=experiment.measures[:2])
    file = MeasurementFile(tmp_path / "file.jsonl", experiment.name, {})
    values = {measure.name: 1.0 for measure in experiment.measures}
    for variant in experiment.variants:
        for prompt in (0, 1):
            file.append(variant.name, 0, [prompt], [_measured(values, (variant.x or 0) + prompt)])
    report = make_report(experiment, replace(experiment.size, num_prompts=2), file)
    draw_figure(experiment, report.rows, report.measured, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert text.count(CAPPED) == text.count(UNCAPPED) == len(experiment.measures)


def _measured(values, factor):
    return Measured({name: factor * value for name, value in values.items()})


def test_drawn_sprites_travel_at_their_speed_and_nothing_pulses_or_vanishes():
    scenes = directed_scenes(range(4))
    drawn = draw(scenes, 24)
    for row, scene in zip(read_steadiness(drawn), scenes, strict=True):
        assert set(row) == {measure.name for measure in STEADINESS_MEASURES}
        assert row["travel"] == pytest.approx(SPEEDS[scene.sprites[0].speed], rel=0.05)
        assert row["vanishing"] == 0 and row["pulsing"] < 0.5 and 1 <= row["jump"] < 1.5
    worse = drawn.clone()
    worse[:, :, 12] = torch.stack([draw_background(scene) for scene in scenes])  # a frame without the sprite
    for bad, good in zip(read_steadiness(worse), read_steadiness(drawn), strict=True):
        assert bad["vanishing"] == 2 and bad["pulsing"] > good["pulsing"] and bad["jump"] > 1.3 * good["jump"]
        assert bad["travel"] == pytest.approx(good["travel"], rel=0.05)
    still = drawn[:, :, :1].expand_as(drawn)
    assert all(row["travel"] == 0 and row["pulsing"] == 0 for row in read_steadiness(still))


# --- windows ---------------------------------------------------------------------------------------------------------


def test_the_direction_of_a_drawn_video_of_96_frames_is_read_over_the_whole():
    scenes = directed_scenes(range(2))
    rows = read_videos(scenes, draw(scenes, 96))
    assert all(row["direction"] == row["color"] == row["present"] == 1 for row in rows)


def test_a_variant_says_where_its_windows_are_joined(model):
    bench = WindowsBench(Setup(replace(SMALL, num_frames=14)), model)  # windows of 6 that share 2
    borders = {
        name: bench.borders(EXPERIMENTS["harivo-windows"].variant(name))
        for name in ("streamed", "held", "joint", "joint-middle", "drawn")
    }
    assert borders["streamed"] == borders["held"] == borders["drawn"] == [6, 10]
    assert borders["joint-middle"] == [5, 9] and borders["joint"] == [4, 5, 6, 8, 9, 10]
    strategy = bench.call(Variant("v", "v", Joined("joint", "middle")))["strategy"]
    assert strategy == Joint(middle_cut) and middle_cut(8) == 4
    held = bench.call(Variant("v", "v", Joined("held")))["strategy"]
    assert (held.cut(8), held.context_noise) == (8, 0.5)


def test_the_worst_joint_is_the_step_over_it_as_a_multiple_of_the_others():
    windows = fit_windows(14, 6, 2)
    steps = torch.full((13,), 2.0)
    video = torch.cat([torch.zeros(1), steps.cumsum(0)]) / 255
    as_video = video.reshape(1, -1, 1, 1).expand(3, -1, 4, 4)
    assert worst_joint(as_video, windows) == pytest.approx(1)
    steps[3], steps[8] = 10.0, 6.0  # into frame 4 and into frame 9, of overlaps 4-5 and 8-9
    video = torch.cat([torch.zeros(1), steps.cumsum(0)]) / 255
    assert worst_joint(video.reshape(1, -1, 1, 1).expand(3, -1, 4, 4), windows) == pytest.approx((5 + 3) / 2)
    steps[1] = 10.0  # a jump inside of a window is no joint
    video = torch.cat([torch.zeros(1), steps.cumsum(0)]) / 255
    assert worst_joint(video.reshape(1, -1, 1, 1).expand(3, -1, 4, 4), windows) == pytest.approx((5 + 3) / 2)
    assert worst_joint(torch.zeros(3, 4, 4, 4), [Window(0, 0, 2, 0), Window(1, 0, 4, 2)]) == 0


# --- the mapping network ---------------------------------------------------------------------------------------------


def test_a_new_mapping_network_changes_nothing_and_a_shift_is_a_mean_shift():
    new = tiny.harivo(mapping_network=MappingNetwork(4, num_heads=2, head_dim=4))
    bench = _unloaded(MappingBench, new, num_frames=6)
    (measured,) = bench.measure(Variant("v", "v", {"num_inference_steps": 3}), [0], 0)
    assert set(measured.values.values()) == {0.0} and len(measured.curves["difference"]) == 3
    before = torch.randn(4, 5, 3, dtype=torch.float64)
    changes = changes_of(before, before + 0.25)
    assert changes == pytest.approx({"difference": 0.25, "spread": 0, "mean_shift": 0.25, "std_change": 0}, abs=1e-12)
    scaled = changes_of(before, 2 * before)
    assert scaled["std_change"] == pytest.approx(before.std(correction=0).item())
    assert scaled["difference"] == pytest.approx(before.abs().mean().item())


def test_the_same_draws_are_tested_for_every_kind_of_noise(model):
    experiment, setup = EXPERIMENTS["harivo-noise-normality"], Setup(SMALL)
    bench = NormalityBench(setup, model, 20)
    rows = {
        name: bench.measure(experiment.variant(name), [0], 0)[0].values
        for name in ("independent", "mixed-1", "progressive-2", "shared")
    }
    assert rows["shared"]["correlation"] == pytest.approx(1)
    assert rows["mixed-1"]["correlation"] == pytest.approx(0.5, abs=0.02)
    assert rows["progressive-2"]["correlation"] == pytest.approx(2 / math.sqrt(5), abs=0.02)
    assert rows["independent"]["correlation"] == pytest.approx(0, abs=0.02)
    assert all(row["std"] == pytest.approx(1, abs=0.03) for row in rows.values())
    assert rows["independent"]["passes"] >= 0.8 > 0.5 >= rows["shared"]["passes"]
    assert bench.measure(experiment.variant("shared"), [0], 0)[0].values == rows["shared"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "num_frames", "changes", "message"),
    [
        (WindowsBench, 9, {"overlap": 0}, "windows that overlap; got num_frames=9, overlap=0"),
        (MappingBench, 6, {"mapping_network": None}, "expected a model with a mapping network"),
        (NormalityBench, 6, {"mapping_network": None}, "expected a model with a mapping network"),
        (MappingBench, 9, {}, "num_frames must be at most 6, one window, here; got 9"),
    ],
)
def test_a_model_that_an_experiment_cannot_work_with_is_refused(kind, num_frames, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        folder = loaded(tmp_path / "model", **changes)
        kind(Setup(replace(SMALL, num_frames=num_frames)), folder)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_model_of_ones_own_is_not_taken_where_models_are_trained(capsys):
    assert main(["reproduce", "harivo-table-1", "--model", "x"]) == 2
    assert "harivo-table-1 measures models that it trains itself" in capsys.readouterr().err
