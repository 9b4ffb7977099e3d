"""A run is seen while it is made: events, pace, and several watchers as one."""

from __future__ import annotations

import json

import pytest
import torch

import tiny_runs
from longvid.runs import EventWatcher, Pace, RunPlan, RunWatcher, Watchers
from tiny_runs import begin_run

LOSSLESS = {"codec": "ffv1"}


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_events_of_a_run_tell_every_window_and_chunk_and_how_it_ended(pipe, tmp_path):
    path = tmp_path / "events.jsonl"
    begin_run(tmp_path / "run", pipe, num_frames=5, **LOSSLESS).resume(pipe, watcher=EventWatcher(path))
    lines = events(path)
    kinds = [line["event"] for line in lines if line["event"] != "step"]
    assert kinds == ["plan", "window", "window", "chunk", "window", "window", "chunk", "window", "chunk", "end"]
    assert lines[0]["frames"] == lines[0]["num_frames"] == 5 and (lines[0]["chunks"], lines[0]["windows"]) == (3, 5)
    last = lines[-2]
    assert (last["chunk"], last["start"], last["stop"], last["seed"]) == (2, 4, 5, None)
    assert (last["frames"], last["chunks"], last["steps"], last["seconds_left"]) == (5, 3, 5, 0)
    assert last["frames_per_second"] > 0 and last["host_peak_bytes"] > 2**20 and last["device_bytes"] is None
    assert lines[-1]["error"] is None and all(line["time"].endswith("+00:00") for line in lines)


def test_events_are_added_behind_a_line_that_a_dead_process_left_unfinished(pipe, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "chu')
    watcher = EventWatcher(path)
    watcher.on_end(KeyboardInterrupt("SIGINT"))
    watcher.on_end(None)
    first, *rest = path.read_text().splitlines()
    assert first == '{"event": "chu' and json.loads(rest[0])["error"] == "KeyboardInterrupt: SIGINT" and len(rest) == 2
    with pytest.raises(ValueError, match="events go to a file"):
        EventWatcher(tmp_path)


def test_the_end_is_told_also_when_a_run_fails(pipe, tmp_path):
    class Failing(RunWatcher):
        def on_chunk(self, index, record):
            raise RuntimeError("out of memory")

    path, run = tmp_path / "events.jsonl", begin_run(tmp_path / "run", pipe, num_frames=5, **LOSSLESS)
    with pytest.raises(RuntimeError):
        run.resume(pipe, watcher=Watchers(EventWatcher(path), Failing()))
    assert events(path)[-1]["error"] == "RuntimeError: out of memory"
    run.resume(pipe, watcher=EventWatcher(path))
    plan = [line for line in events(path) if line["event"] == "plan"][-1]
    assert (plan["start"], plan["frames"], plan["chunks"], plan["first_chunk"]) == (2, 3, 2, 1)


def test_the_time_left_is_that_of_the_windows_left_at_the_pace_so_far(pipe, tmp_path):
    clock = Clock()
    pace = Pace(clock)
    assert pace.rate is None and pace.seconds_left is None
    pace.on_plan(RunPlan(tmp_path, 8.0, 10, 0, 10, 5, 0, 10))
    window = next(pipe.stream("a", num_frames=1))
    for _ in range(4):
        clock.now += 3
        pace.on_window(window)
    assert pace.rate == pytest.approx(1 / 3) and pace.seconds_left == pytest.approx(18)
    assert pace.values()["frames_per_second"] == 0.3333


def test_several_watchers_are_told_in_turn_and_each_sees_the_tensors_of_those_before():
    class Doubling(RunWatcher):
        def on_step(self, pipe, step, timestep, tensors):
            return {"latents": 2 * tensors["latents"]}

    both = Watchers(Doubling(), RunWatcher(), Doubling())
    assert torch.equal(both.on_step(None, 0, 0, {"latents": torch.ones(2)})["latents"], torch.full((2,), 4.0))
