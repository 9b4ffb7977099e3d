"""Processes that die while they write a run: what is left plays, and goes on to the same video, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import tiny_runs
from longvid import Run, StreamState
from longvid.runs.manifest import NAME
from tiny_runs import Reaper, begin_run, frames_of, in_child, kept_frames

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
PIPELINES = {
    "art_v": (tiny_runs.art_v, 5),
    "streaming_t2v": (tiny_runs.streaming_t2v, 8),
    "harivo": (tiny_runs.harivo, 8),
    "harivo_joint": (lambda: tiny_runs.harivo(strategy="joint", num_inference_steps=3), 8),
}
"""How each is made, and the frames of its run."""


class Case:
    """A pipeline and the frames of its run that was never stopped."""

    def __init__(self, name: str, folder: Path):
        make, self.num_frames = PIPELINES[name]
        self.pipe, self.folder = make(), folder
        self.pipe.known_fingerprint()
        began = time.perf_counter()
        assert in_child(lambda: self.go("whole")) == 0
        self.seconds = time.perf_counter() - began
        self.frames = frames_of(Run(folder / "whole"))
        self.kept = kept_frames(Run(folder / "whole"))
        assert len(self.frames) == len(self.kept) == self.num_frames

    def go(self, name: str) -> None:
        """Begin the run unless that was done, and make what is missing."""
        path = self.folder / name
        run = Run(path) if (path / NAME).exists() else begin_run(path, self.pipe, num_frames=self.num_frames)
        run.resume(self.pipe)

    def check_left(self, name: str) -> None:
        """Whatever a run's process died of, its manifest is whole and its video plays up to the last chunk but one."""
        if not (self.folder / name / NAME).exists():
            return
        run = Run(self.folder / name)
        chunks = run.manifest.chunks
        for index, record in enumerate(chunks):
            StreamState.load(run._folder.state(index, record))
        if len(chunks) > 1:
            left = frames_of(run)
            assert len(left) >= chunks[-2].stop
            assert torch.equal(left, self.frames[: len(left)])
            assert torch.equal(kept_frames(run), self.kept[: run.num_made])

    def check_whole(self, name: str) -> None:
        """The run is complete, has the frames of the one never stopped, and nothing is left beside its files."""
        run = Run(self.folder / name)
        assert run.complete and torch.equal(frames_of(run), self.frames) and torch.equal(kept_frames(run), self.kept)
        assert _files(run.path) == _files(self.folder / "whole")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


every_pipeline = pytest.mark.parametrize("case", list(PIPELINES), indirect=True)


def when_slow(*names):
    """Every pipeline; these in the slow tier only."""
    params = [pytest.param(name, marks=[pytest.mark.slow] * (name in names)) for name in PIPELINES]
    return pytest.mark.parametrize("case", params, indirect=True)


@when_slow("harivo", "harivo_joint")
def test_a_run_killed_again_and_again_at_syncs_renames_and_half_writes_ends_with_the_same_frames(case):
    for point in (3, 9, 20):
        code = in_child(lambda: case.go("often"), before=Reaper(point).install)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        case.check_left("often")
    assert in_child(lambda: case.go("often")) == 0
    case.check_whole("often")


@pytest.mark.slow
@every_pipeline
def test_a_run_killed_at_every_other_point_ends_with_the_same_frames(case):
    point = code = 0
    while code != 0 or point == 0:
        point += 2
        shutil.rmtree(case.folder / "point", ignore_errors=True)
        code = in_child(lambda: case.go("point"), before=Reaper(point).install)
        case.check_left("point")
        if code != 0:
            assert code == -signal.SIGKILL
            assert in_child(lambda: case.go("point")) == 0
        case.check_whole("point")
    assert point > 10 * len(Run(case.folder / "whole").manifest.chunks)  # syncs, renames and writes of the run


@pytest.mark.slow
@every_pipeline
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_frames(case):
    moments, kills = random.Random(7), 0
    for attempt in range(200):
        name = f"random-{attempt}"
        while in_child(lambda: case.go(name), delay=moments.uniform(0, case.seconds)) != 0:  # noqa: B023
            kills += 1
            case.check_left(name)
        case.check_whole(name)
        if kills >= 20:
            break
    assert kills >= 20


@when_slow("streaming_t2v", "harivo", "harivo_joint")
def test_a_run_on_a_disk_that_is_full_says_so_and_goes_on_when_there_is_room(case):
    import resource

    largest = max(path.stat().st_size for path in (case.folder / "whole").rglob("*.*"))
    room = largest - 512  # it does not fit, even without the index that a video can do without

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    def go() -> None:
        with pytest.raises(OSError, match="File too large"):
            case.go("full")

    assert in_child(go, before=full) == 0
    case.check_left("full")
    assert in_child(lambda: case.go("full")) == 0
    case.check_whole("full")


@pytest.mark.slow
@every_pipeline
@pytest.mark.parametrize("room", [16, 40])
def test_a_run_on_a_small_file_system_goes_on_when_there_is_room(case, tmp_path, room):
    if room == 40 and len(Run(case.folder / "whole").manifest.chunks) == 1:
        pytest.skip("a run of one chunk fits")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}k", "none", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    try:
        begun = begin_run(tmp_path / "small", case.pipe, num_frames=case.num_frames)

        def go() -> None:
            with pytest.raises(OSError, match="No space left"):
                begun.resume(case.pipe)

        code = in_child(go)
        case_of_mount = Run(tmp_path / "small")
        if code == 0:
            subprocess.run(["mount", "-o", "remount,size=10m", str(tmp_path)], check=True)
        assert in_child(lambda: case_of_mount.resume(case.pipe)) == 0
        assert torch.equal(frames_of(Run(tmp_path / "small")), case.frames)
        assert code == 0, "the file system was not full"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=False)


@when_slow("streaming_t2v", "harivo", "harivo_joint")
def test_only_one_process_writes_a_run_and_the_lock_of_a_dead_one_is_free(case):
    def hold() -> None:
        with Run(case.folder / "whole")._opened():
            (case.folder / "held").touch()
            time.sleep(60)

    child = os.fork()
    if child == 0:
        try:
            hold()
        finally:
            os._exit(1)
    while not (case.folder / "held").exists():
        time.sleep(0.01)
    run = Run(case.folder / "whole")
    with pytest.raises(ValueError, match=f"is being written by process {child} on "):
        run.resume(case.pipe)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (case.folder / "held").unlink()
    assert in_child(lambda: run.resume(case.pipe)) == 0
