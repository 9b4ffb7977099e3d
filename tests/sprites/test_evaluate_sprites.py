"""Evaluations: a pipeline that draws the truth reaches the top, one that ignores the prompt falls to chance."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from longvid.sprites import (
    caption_clip,
    caption_frame,
    draw,
    evaluate_pipeline,
    evaluate_t2i,
    evaluate_vae,
    format_report,
)
from longvid.sprites.evaluate import seam_ratio
from longvid.sprites.evaluate_scenes import evaluation_scenes
from longvid.sprites.report import mean_figure, share_figure, wilson_interval


class Draws:
    """A pipeline that draws what it is asked for, or with `shift` what another prompt asks for."""

    def __init__(self, shift: int = 0, vae: nn.Module | None = None) -> None:
        scenes = evaluation_scenes(32)
        self.answers = {caption_clip(s): scenes[(i + shift) % 32] for i, s in enumerate(scenes)}
        self.vae, self.calls = vae, []

    def __call__(self, prompts, *, num_frames, generator, output_type):
        assert output_type == "pt" and len(generator) == len(prompts)
        self.calls.append((len(prompts), num_frames, [g.initial_seed() for g in generator]))
        videos = draw([self.answers[p] for p in prompts], num_frames)
        return SimpleNamespace(frames=videos.transpose(1, 2))


class Copies(nn.Module):
    """An autoencoder that adds `error` to what it is given."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error))

    def encode(self, x):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x))

    def decode(self, z):
        return SimpleNamespace(sample=z + self.error)


@pytest.fixture(scope="module")
def perfect():
    done = []
    pipe = Draws(vae=Copies())
    report = evaluate_pipeline(pipe, num_prompts=16, long_prompts=1, progress=lambda *at: done.append(at))
    return report, pipe, done


def test_a_pipeline_that_draws_the_truth_meets_every_bar(perfect):
    report, _, _ = perfect
    barred = {name: figure for name, figure in report["figures"].items() if figure["bar"] is not None}
    assert len(barred) == 12 and all(figure["met"] for figure in barred.values())
    for name, figure in report["figures"].items():
        if figure["kind"] == "share":
            assert figure["value"] == figure["ceiling_drawn"] == figure["ceiling_vae"] == 1, name


def test_every_figure_stands_with_its_number_interval_and_chance(perfect):
    report, _, _ = perfect
    for name, figure in report["figures"].items():
        low, high = figure["interval"]
        assert figure["n"] > 0 and low - 1e-9 <= figure["value"] <= high + 1e-9
        assert figure["chance"] is not None or "still there" in name or "flicker" in name


def test_the_report_survives_json_and_reads_as_a_table(perfect):
    report, _, _ = perfect
    assert json.loads(json.dumps(report)) == report
    text = format_report(report)
    assert text.startswith("text to video: 12 of 12 bars met")
    assert all(name in text for name in report["figures"])
    assert "fewer make a quick look" in text


def test_each_prompt_has_its_own_seed_and_progress_reaches_the_end(perfect):
    report, pipe, done = perfect
    assert [(size, frames) for size, frames, _ in pipe.calls] == [(8, 64), (8, 64), (1, 256)]
    seeds = sum((seeds for _, frames, seeds in pipe.calls if frames == 64), [])
    assert len(set(seeds)) == 16 and done == [(8, 17), (16, 17), (17, 17)]
    assert [p["seed"] for p in report["prompts"][:16]] == seeds


def test_a_pipeline_that_answers_another_prompt_misses_the_bars():
    figures = evaluate_pipeline(Draws(shift=9), num_prompts=8)["figures"]
    assert figures["64 frames: sprite color, last 16"]["met"] is False
    assert figures["64 frames: direction, frames 0-15"]["value"] < 0.6
    assert figures["64 frames: sprite still there"]["met"] is True


def test_a_pipeline_that_fades_to_grey_loses_the_sprite_and_the_background():
    class Fades(Draws):
        def __call__(self, prompts, **call):
            made = super().__call__(prompts, **call).frames
            keep = torch.linspace(1, 0, made.shape[1])[None, :, None, None, None]
            return SimpleNamespace(frames=made * keep + 0.5 * (1 - keep))

    figures = evaluate_pipeline(Fades(), num_prompts=4)["figures"]
    assert figures["64 frames: sprite still there"]["value"] == 0
    assert figures["64 frames: background drift at the end"]["met"] is False


def test_bars_are_set_only_for_the_lengths_they_name():
    figures = evaluate_pipeline(Draws(), num_prompts=2, num_frames=20)["figures"]
    assert all(figure["bar"] is None and figure["met"] is None for figure in figures.values())


class DrawsInChunks(Draws):
    """Says where its chunks begin, and may brighten every second of them by `jump`."""

    def __init__(self, jump: float = 0.0) -> None:
        super().__init__()
        self.jump = jump

    def stream(self):
        raise NotImplementedError("evaluations call the pipeline")

    def __call__(self, prompts, *, callback_on_chunk_end, **options):
        output = super().__call__(prompts, **options)
        for index, start in enumerate(range(0, options["num_frames"], 12)):
            callback_on_chunk_end(self, index, SimpleNamespace(start=start))
            output.frames[:, start : start + 12] += self.jump * (index % 2)
        return output


@pytest.mark.parametrize(("jump", "met"), [(0.0, True), (0.1, False)])
def test_chunks_that_do_not_fit_are_seen_at_their_seams(jump, met):
    figures = evaluate_pipeline(DrawsInChunks(jump), num_prompts=3, num_frames=96)["figures"]
    assert figures["96 frames: step over a seam, as a multiple of others"]["met"] is met
    whole = evaluate_pipeline(DrawsInChunks(jump), num_prompts=3, num_frames=24)["figures"]
    multiple = whole["24 frames: flicker, as a multiple of drawn videos"]
    assert multiple["value"] == pytest.approx(1.0) if met else multiple["value"] > 1.1


def test_the_step_over_a_seam_is_a_multiple_of_the_others():
    ramp = torch.arange(10.0)[None, :, None, None].expand(3, 10, 4, 4) / 64
    assert seam_ratio(ramp, {0, 5}) == pytest.approx(1.0)
    jumping = ramp.clone()
    jumping[:, 5:] += 3 / 64  # one step of four
    assert seam_ratio(jumping, {5}) == pytest.approx(4.0)
    assert seam_ratio(ramp, {0}) is None and seam_ratio(ramp, range(10)) is None


def test_impossible_evaluations_are_refused():
    for options, message in (
        ({"num_frames": 15}, "num_frames of at least 16"),
        ({"num_prompts": 0}, "num_prompts must be at least 1"),
        ({"long_prompts": 9, "num_prompts": 8}, "long_prompts"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_pipeline(Draws(), **options)


def test_a_pipeline_that_returns_the_wrong_frames_is_named():
    def short(prompts, **call):
        return SimpleNamespace(frames=torch.zeros(len(prompts), 3, 3, 64, 64))

    with pytest.raises(ValueError, match=r"expected frames \(2, 16, 3, H, W\)"):
        evaluate_pipeline(short, num_prompts=2, num_frames=16)


def answer_frames(scale: int = 1):
    asked = {caption_frame(s, 7 * i % 32): (s, 7 * i % 32) for i, s in enumerate(evaluation_scenes(48))}

    def predict(prompts, seed):
        made = torch.cat([draw(asked[p][0], 1, start=asked[p][1])[:, :, 0] for p in prompts])
        return made.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    return predict


@pytest.mark.parametrize("scale", [1, 2])
def test_an_image_model_that_draws_the_truth_meets_every_bar_at_any_size(scale):
    report = evaluate_t2i(answer_frames(scale), num_prompts=48, batch_size=20, vae=Copies())
    assert all(figure["value"] == figure["ceiling_vae"] == 1 for figure in report["figures"].values())
    assert {n for n, f in report["figures"].items() if f["bar"]} == {
        "color", "background color", "background style", "shape", "place",
    }  # fmt: skip
    assert json.loads(json.dumps(report)) == report
    assert "5 of 5 bars met" in format_report(report)


def test_an_image_model_that_draws_nothing_gets_nothing_about_the_sprite_right():
    figures = evaluate_t2i(lambda prompts, seed: torch.full((len(prompts), 3, 64, 64), 0.58), num_prompts=24)["figures"]
    assert figures["color"]["value"] == figures["shape"]["value"] == figures["place"]["value"] == 0


def test_the_psnr_of_an_autoencoder_is_that_of_its_error():
    figure = evaluate_vae(Copies(0.02), num_frames=24)["figures"]["PSNR"]
    assert figure["value"] == pytest.approx(40, abs=0.3) and figure["met"]
    assert not evaluate_vae(Copies(0.2), num_frames=24)["figures"]["PSNR"]["met"]


def test_evaluations_ask_only_for_held_out_combinations_and_balance_the_motions():
    scenes = evaluation_scenes(64)
    assert all(scene.split == "held_out" and len(scene.sprites) == 1 for scene in scenes)
    motions = [scene.sprites[0].motion for scene in scenes]
    assert all(motions.count(m) == 8 for m in ("left", "right", "up", "down", "bouncing", "circling", "spinning"))
    assert evaluation_scenes(8) == scenes[:8]


def test_wilson_intervals_agree_with_published_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(3, 2)


def test_a_mean_over_missing_values_never_meets_its_bar():
    assert mean_figure([1.0, 2.0], bar=3.0)["met"] is True
    missing = mean_figure([1.0, float("nan")], bar=3.0)
    assert missing["met"] is False and missing["num_missing"] == 1
    assert share_figure([], bar=0.5)["value"] is None and mean_figure([])["value"] is None
