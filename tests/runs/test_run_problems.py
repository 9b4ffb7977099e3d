"""What a run does about a chunk that has a problem: warns, stops, or makes it again, the same way every time."""

from __future__ import annotations

import json

import pytest
import torch

import tiny_runs
from longvid import Run
from longvid.metrics.diagnosis import Limits
from longvid.runs import EventWatcher, RunWatcher
from longvid.runs.takes import ProblemFound, reroll_seed
from tiny_runs import begin_run, frames_of

LOSSLESS = {"codec": "ffv1"}
STRICT = Limits(seam=0, color=1e6, contrast=1e6, still=0, black=0)  # all but the first jump


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


class Stopped(Exception):
    pass


class Noting(RunWatcher):
    def __init__(self, *, stop_at=None):
        self.takes, self.seeds, self.stop_at = [], [], stop_at

    def on_diagnosis(self, index, take, diagnosis):
        self.takes.append((index, take, [found.problem for found in diagnosis.findings]))
        if len(self.takes) == self.stop_at:
            raise Stopped

    def on_reroll(self, index, take, change):
        self.seeds.append(change.seed)


class Poisoned:
    """Makes the pipeline's decoder give NaN in some of its calls."""

    def __init__(self, pipe, monkeypatch, calls):
        self.count, self.calls, self.decode = 0, calls, pipe.vae.decode
        monkeypatch.setattr(pipe.vae, "decode", self)

    def __call__(self, *args, **kwargs):
        self.count += 1
        result = self.decode(*args, **kwargs)
        if self.count in self.calls:
            result[0][..., 0, 0] = float("nan")
        return result


def test_looking_at_a_run_changes_none_of_its_bits(pipe, tmp_path):
    seen = begin_run(tmp_path / "seen", pipe, num_frames=4, on_problem="warn", limits=STRICT, **LOSSLESS)
    noting = Noting()
    seen.resume(pipe, watcher=noting)
    unseen = begin_run(tmp_path / "unseen", pipe, num_frames=4, **LOSSLESS).resume(pipe)
    assert torch.equal(frames_of(seen), frames_of(unseen))
    assert noting.takes == [(0, 1, []), (1, 1, ["seam"])] and not noting.seeds


def test_a_run_that_stops_at_a_problem_keeps_the_chunk_and_goes_on_when_resumed(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=4, on_problem="stop", limits=STRICT, **LOSSLESS)
    with pytest.raises(ProblemFound, match=r"chunk 1: the picture jumps .*longvid reroll .* --chunk 1 --seed S"):
        run.resume(pipe)
    assert Run(run.path).num_made == 4 and not Run(run.path).complete
    assert Run(run.path).resume(pipe).complete


def test_rerolls_are_bounded_and_a_stopped_run_makes_the_same_ones(pipe, tmp_path):
    options = {"num_frames": 4, "on_problem": "reroll", "max_rerolls": 1, "limits": STRICT, **LOSSLESS}
    whole, noting = begin_run(tmp_path / "whole", pipe, **options), Noting()
    whole.resume(pipe, watcher=noting)
    assert noting.takes == [(0, 1, []), (1, 1, ["seam"]), (1, 2, ["seam"])]
    assert noting.seeds == [reroll_seed(whole.manifest.keys[0], 1, 1)]
    assert len(list((whole.path / "chunks").iterdir())) == 2  # takes that were not kept are gone
    stopped = begin_run(tmp_path / "stopped", pipe, **options)
    for looks in (3, 1):  # in the second take of chunk 1, then in its first
        with pytest.raises(Stopped):
            Run(stopped.path).resume(pipe, watcher=Noting(stop_at=looks))
    again = Run(stopped.path).resume(pipe)
    assert torch.equal(frames_of(again), frames_of(whole))
    assert [chunk.seed for chunk in again.manifest.chunks] == [chunk.seed for chunk in whole.manifest.chunks]


def test_a_chunk_of_nan_is_made_again_or_named(pipe, tmp_path, monkeypatch):
    events = tmp_path / "events.jsonl"
    lax = {"limits": Limits(1e6, 1e6, 1e6, 0, 0), **LOSSLESS, "num_frames": 4}
    run = begin_run(tmp_path / "again", pipe, on_problem="reroll", **lax)
    with monkeypatch.context() as patch:
        Poisoned(pipe, patch, {4})
        run.resume(pipe, watcher=EventWatcher(events))
    assert [chunk.seed for chunk in run.manifest.chunks] == [None, reroll_seed(run.manifest.keys[0], 1, 1)]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    nan = [line for line in told if line["event"] == "diagnosis" and line["problems"]]
    assert [(line["chunk"], line["problems"][0]["problem"]) for line in nan] == [(1, "nan")]
    assert [line["take"] for line in told if line["event"] == "reroll"] == [2]
    assert [line["frames"] for line in told if line["event"] == "chunk"] == [2, 4]
    named = begin_run(tmp_path / "named", pipe, on_problem="warn", **lax)
    with monkeypatch.context() as patch:
        Poisoned(pipe, patch, {4})
        with pytest.raises(ValueError, match="frame 3 holds NaN or infinity"):
            named.resume(pipe)
    hopeless = begin_run(tmp_path / "hopeless", pipe, on_problem="reroll", max_rerolls=1, **lax)
    with monkeypatch.context() as patch:
        Poisoned(pipe, patch, set(range(3, 99)))
        with pytest.raises(ValueError, match="all 2 takes of chunk 1 hold NaN"):
            hopeless.resume(pipe)
    assert Run(hopeless.path).num_made == 2


@pytest.mark.parametrize(
    "wrong",
    [{"on_problem": "panic"}, {"max_rerolls": -1}, {"limits": {"seam": 1}}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_mean_nothing_are_refused(pipe, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        begin_run(tmp_path / "run", pipe, **wrong)
    assert not (tmp_path / "run").exists()
