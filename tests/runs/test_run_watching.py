"""A run is seen while it is made: events, pace, and several watchers as one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import tiny_runs
from longvid import StreamState, read_video
from longvid.runs import EventWatcher, Pace, PreviewWatcher, RunPlan, RunWatcher, Watchers
from longvid.video.state import VideoChunk
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


def test_steps_that_another_process_made_are_no_part_of_the_pace(tmp_path):
    clock = Clock()
    pace = Pace(clock)
    pace.on_plan(RunPlan(tmp_path, 8.0, 10, 0, 10, 1, 0, 1))
    assert pace.seconds_left is None
    four = SimpleNamespace(num_timesteps=4, device="cpu")
    clock.now = 10.0
    pace.on_step(four, 2, None, {})  # the third of four: the first it made itself
    assert (pace.steps, pace.window_part, pace.seconds_left) == (1, 0.75, 10)


def test_several_watchers_are_told_in_turn_and_each_sees_the_tensors_of_those_before():
    class Doubling(RunWatcher):
        def on_step(self, pipe, step, timestep, tensors):
            return {"latents": 2 * tensors["latents"]}

    both = Watchers(Doubling(), RunWatcher(), Doubling())
    assert torch.equal(both.on_step(None, 0, 0, {"latents": torch.ones(2)})["latents"], torch.full((2,), 4.0))


def test_a_preview_shows_the_frames_made_so_far_and_a_resumed_one_those_before(pipe, tmp_path):
    class StopAtFrame3(RunWatcher):
        def on_window(self, window):
            if window.start == 3:
                raise KeyboardInterrupt

    run = begin_run(tmp_path / "run", pipe, num_frames=5, **LOSSLESS)
    (run.path / ".preview.mp4.1.partial.mp4").write_bytes(b"of a dead process")
    with pytest.raises(KeyboardInterrupt):
        run.resume(pipe, watcher=Watchers(PreviewWatcher(), StopAtFrame3()))
    assert len(list(read_video(run.path / "preview.mp4"))) == 4
    run.resume(pipe, watcher=PreviewWatcher())
    clip = read_video(run.path / "preview.mp4")
    assert len(list(clip)) == 4 and (clip.height, clip.width) == (
        16,
        16,
    )  # of chunk 0 its first frame, all of the others
    with Image.open(run.path / "preview.png") as page:
        assert page.format == "PNG" and page.width > 32
    assert not list(run.path.glob(".*"))


def test_a_preview_is_small_evenly_spaced_and_written_seldom(tmp_path):
    clock = Clock()
    preview = PreviewWatcher(seconds=5, max_frames=4, max_side=8, clock=clock)
    preview.on_plan(RunPlan(tmp_path, 8.0, 40, 0, 40, 1, 0, 40))
    written = []
    for start in range(40):
        preview.on_window(VideoChunk(torch.full((1, 3, 1, 24, 30), start / 40), start, StreamState(start + 1)))
        written.append((tmp_path / "preview.png").stat().st_mtime_ns)
        clock.now += 1
    assert len(set(written)) == 8 and len(preview._frames) <= 8
    preview.on_end(None)
    frames = list(read_video(tmp_path / "preview.mp4"))
    levels = torch.stack(frames).mean((1, 2, 3)) * 40
    assert frames[0].shape == (3, 6, 8) and len(frames) <= 4
    assert (levels.diff() - levels.diff()[0]).abs().max() < 1 and levels[0] < 1
    with pytest.raises(ValueError, match="max_frames >= 1"):
        PreviewWatcher(max_frames=0)
