"""Processes that die while a chunk with a problem is made again: the run goes on to the takes of one never stopped."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter

import pytest
import torch

import tiny_runs
from longvid import Run
from longvid.metrics.diagnosis import Limits
from longvid.runs import RunWatcher
from tiny_runs import Reaper, begin_run, frames_of, in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
STRICT = Limits(seam=0, color=1e6, contrast=1e6, still=0, black=0)  # every chunk but the first has a problem
MAX_REROLLS = 2


class Armed(RunWatcher):
    """Notes every reroll in a file, and kills its process at a point behind the first look at a problem.

    Points are steps, windows and looks, and those of a `Reaper`.
    """

    def __init__(self, notes, point=0, of=""):
        self.notes, self.reaper, self.installed = notes, Reaper(point, of), False

    def pass_by(self):
        if self.installed and not self.reaper.of:
            self.reaper.pass_by()

    def on_step(self, pipe, step, timestep, tensors):
        self.pass_by()
        return {}

    def on_window(self, window):
        self.pass_by()

    def on_reroll(self, index, take, change):
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()} {index} {take} {change.seed}\n")
        self.pass_by()

    def on_diagnosis(self, index, take, diagnosis):
        if diagnosis.findings and not self.installed:
            self.reaper.install()
            self.installed = True
        self.pass_by()


class Rerolls:
    """A run that was never stopped; all its chunks of two frames but the first are made again."""

    def __init__(self, folder, num_frames):
        self.folder, self.num_frames, self.pipe = folder, num_frames, tiny_runs.art_v()
        self.pipe.known_fingerprint()
        assert self.go("whole") == 0
        self.whole = Run(folder / "whole")
        self.frames = frames_of(self.whole)
        self.seeds = [chunk.seed for chunk in self.whole.manifest.chunks]
        assert self.seeds[0] is None and len(self.rerolls("whole")) == (num_frames // 2 - 1) * MAX_REROLLS

    def go(self, name, point=0, of=""):
        """Begin the run or go on with it, in a process of its own."""
        path, notes = self.folder / name, self.folder / f"{name}.txt"

        def act():
            options = {"on_problem": "reroll", "max_rerolls": MAX_REROLLS, "limits": STRICT}
            run = Run(path) if path.exists() else begin_run(path, self.pipe, num_frames=self.num_frames, **options)
            run.resume(self.pipe, watcher=Armed(notes, point, of))

        return in_child(act)

    def rerolls(self, name):
        """Process, chunk, take and seed of every reroll so far."""
        return [tuple(map(int, line.split())) for line in (self.folder / f"{name}.txt").read_text().splitlines()]

    def check(self, name):
        """The run is that which was never stopped: its takes, its bits, its files; no process made more rerolls."""
        run = Run(self.folder / name)
        assert run.complete and torch.equal(frames_of(run), self.frames)
        chunks = run.manifest.chunks
        assert [(chunk.seed, chunk.take) for chunk in chunks] == [
            (chunk.seed, chunk.take) for chunk in self.whole.manifest.chunks
        ]
        files = [{str(path.relative_to(each.path)) for path in each.path.rglob("*")} for each in (run, self.whole)]
        assert files[0] == files[1]
        made = self.rerolls(name)
        assert max(Counter(reroll[:2] for reroll in made).values()) <= MAX_REROLLS
        assert {reroll[1:] for reroll in made} == {reroll[1:] for reroll in self.rerolls("whole")}


@pytest.fixture(scope="module")
def rerolls(request, tmp_path_factory):
    return Rerolls(tmp_path_factory.mktemp("rerolls"), request.param)


one_chunk = pytest.mark.parametrize("rerolls", [4], indirect=True, ids=["one chunk"])
two_chunks = pytest.mark.parametrize("rerolls", [6], indirect=True, ids=["two chunks"])


@one_chunk
def test_a_run_killed_in_the_state_of_a_new_take_and_while_an_old_one_is_deleted_makes_the_same_takes(rerolls):
    assert rerolls.go("run", 1, of="states/.000001-2") == -signal.SIGKILL  # half of the second take's state
    halves = [path.name for path in (rerolls.folder / "run" / "states").iterdir() if path.name.endswith(".partial")]
    assert len(halves) == 1 and len(Run(rerolls.folder / "run").manifest.chunks) == 1
    kept = rerolls.whole.manifest.chunks[1].take
    discarded = next(take for take in (1, 2, 3) if take != kept)
    assert rerolls.go("run", 1, of=f"chunks/000001-{discarded}.mp4") == -signal.SIGKILL
    assert len(Run(rerolls.folder / "run").manifest.chunks) in (1, 2)
    assert rerolls.go("run") == 0
    rerolls.check("run")


@pytest.mark.slow
@two_chunks
def test_a_run_killed_at_every_point_of_its_rerolls_makes_the_same_takes(rerolls):
    point = code = 0
    while code != 0 or point == 0:
        point += 1
        shutil.rmtree(rerolls.folder / "point", ignore_errors=True)
        (rerolls.folder / "point.txt").unlink(missing_ok=True)
        code = rerolls.go("point", point)
        if code != 0:
            assert code == -signal.SIGKILL
            assert rerolls.go("point") == 0
        rerolls.check("point")
    assert point > 50


@pytest.mark.slow
@two_chunks
def test_a_run_killed_again_and_again_within_one_reroll_makes_the_same_takes(rerolls):
    kills = 0
    for point in range(2, 200, 3):
        code = rerolls.go("often", point)
        if code == 0:
            break
        kills += 1
    assert kills >= 10
    assert rerolls.go("often") == 0
    rerolls.check("often")
