"""What a run folder promises: the frames of the call, kept; any part made again; longer; shared."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import tiny_runs
from longvid import GuidanceSchedule, Run, StreamState
from longvid.runs import RunOptions, RunWatcher, begin
from longvid.runs.spans import spans_from
from longvid.video.frames import uint8_frames
from longvid.video.windows import plan_windows
from tiny_runs import PROMPT, begin_run, frames_of

LOSSLESS = {"codec": "ffv1"}


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


@pytest.fixture(scope="module")
def streaming():
    return tiny_runs.streaming_t2v()


@pytest.fixture(scope="module")
def made(pipe, tmp_path_factory):
    """A finished run of 7 frames in chunks of 2; tests work on copies."""
    return begin_run(tmp_path_factory.mktemp("made") / "run", pipe, **LOSSLESS).resume(pipe)


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


def called(pipe, num_frames, prompt=PROMPT, seed=3, **options):
    generator = torch.Generator().manual_seed(seed)
    frames = pipe(prompt, num_frames=num_frames, generator=generator, output_type="pt", **options).frames[0]
    return torch.from_numpy(uint8_frames(frames)).permute(0, 3, 1, 2)


def changed(run, before):
    return [index for index, (a, b) in enumerate(zip(frames_of(run), before, strict=True)) if not torch.equal(a, b)]


def test_a_run_holds_the_frames_of_the_call_bit_for_bit(pipe, streaming, made, tmp_path):
    assert made.complete and torch.equal(frames_of(made), called(pipe, 7))
    run = begin_run(tmp_path / "run", streaming, num_frames=7, **LOSSLESS).resume(streaming)
    assert torch.equal(frames_of(run), called(streaming, 7))


def test_generate_to_is_one_call_from_python(pipe, tmp_path):
    generator = torch.Generator().manual_seed(3)
    run = pipe.generate_to(tmp_path / "run", PROMPT, num_frames=4, generator=generator, fps=12, **LOSSLESS)
    assert run.complete and torch.equal(frames_of(run), called(pipe, 4))
    assert run.manifest.options.rate == 12 and run.video.name == "video.mkv"
    assert Run(tmp_path / "run").complete


def test_every_chunk_has_its_frames_its_state_and_its_time_in_the_manifest(made):
    chunks = json.loads((made.path / "run.json").read_text())["chunks"]
    assert [(chunk["start"], chunk["stop"]) for chunk in chunks] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert all(chunk["seconds"] > 0 and chunk["made"].endswith("+00:00") for chunk in chunks)
    for index, chunk in enumerate(made.manifest.chunks):
        assert StreamState.load(made._folder.state(index, chunk)).next_window == chunk.stop_window
    assert (made.path / "video.mkv").exists() and not list(made.path.rglob("*.partial"))


def test_a_chunk_is_as_many_windows_as_make_its_frames():
    frames = list(spans_from(plan_windows(40, size=1), 0, 16))
    assert [(s.start, s.stop) for s in frames] == [(0, 16), (16, 32), (32, 40)]
    chunks = list(spans_from(plan_windows(30, size=16, overlap=8), 1, 16))
    assert [(s.first_window, s.start, s.stop) for s in chunks] == [(1, 16, 24), (2, 24, 30)]


class Stop(Exception):
    pass


class StopAt(RunWatcher):
    def __init__(self, windows):
        self.left = windows

    def on_window(self, window):
        self.left -= 1
        if not self.left:
            raise Stop


@pytest.mark.parametrize("kind", ["image", "video", "story", "schedule"])
@pytest.mark.parametrize("method", ["art_v", pytest.param("streaming_t2v", marks=pytest.mark.slow)])
def test_whatever_a_run_begins_with_is_kept_in_its_folder(request, tmp_path, kind, method):
    pipe = request.getfixturevalue({"art_v": "pipe", "streaming_t2v": "streaming"}[method])
    video = torch.rand(70, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    call = {
        "image": {"image": Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))},
        "video": {"video": video, "anchor_frame": 2},
        "story": {"prompt": [PROMPT, "a blue square"], "frames_per_prompt": 3},
        "schedule": {"guidance_scale": GuidanceSchedule(high=6.0, low=3.0, until=0.5)},
    }[kind]
    kept = {**call, "video": iter(video)} if kind == "video" else call  # read once, then gone
    request_type = type(pipe).stream.request_type
    begun = request_type(**{"prompt": PROMPT, "num_frames": 6, **kept})
    begin(tmp_path / "run", pipe, begun, RunOptions(chunk_frames=2, **LOSSLESS), seed=3)
    with pytest.raises(Stop):
        Run(tmp_path / "run").resume(pipe, watcher=StopAt(2))
    run = Run(tmp_path / "run").resume(pipe)
    assert torch.equal(frames_of(run), called(pipe, 6, **{"prompt": PROMPT, **call}))


def test_a_run_is_stopped_by_anything_and_goes_on_from_its_last_chunk(pipe, made, tmp_path):
    run = begin_run(tmp_path / "run", pipe, **LOSSLESS)
    with pytest.raises(Stop):
        run.resume(pipe, watcher=StopAt(4))
    stopped = Run(tmp_path / "run")
    assert stopped.num_made == 2 and not stopped.complete and len(frames_of(stopped)) == 2
    assert torch.equal(frames_of(stopped.resume(pipe)), frames_of(made))


def test_a_chunk_made_again_changes_its_frames_and_no_others(pipe, copy, made):
    copy.reroll(pipe, chunk=1, seed=8)
    assert changed(copy, frames_of(made)) == [2, 3]
    assert copy.complete and Run(copy.path).manifest.chunks[1].seed == 8
    copy.reroll(pipe, chunk=1, seed=3)
    assert changed(copy, frames_of(made)) == []
    assert len(list((copy.path / "chunks").iterdir())) == 4


def test_a_chunk_made_again_with_the_rest_is_continued_by_it(pipe, copy, made):
    copy.reroll(pipe, chunk=1, seed=8, prompt="a blue square", keep_rest=False)
    assert changed(copy, frames_of(made)) == [2, 3, 4, 5, 6]
    state = StreamState.load(copy._folder.state(1, copy.manifest.chunks[1]))
    rest = torch.cat([chunk.frames for chunk in pipe.stream(PROMPT, num_frames=7, resume=_keyed(state, copy))], dim=2)
    assert torch.equal(frames_of(copy)[4:], torch.from_numpy(uint8_frames(rest)).permute(0, 3, 1, 2))


def _keyed(state, run):
    return StreamState(state.next_window, state.context, run.manifest.keys, state.fingerprint)


def test_a_longer_run_is_the_run_begun_with_that_length(pipe, streaming, copy, tmp_path):
    copy.extend(pipe, num_frames=10)
    assert torch.equal(frames_of(copy), called(pipe, 10))
    run = begin_run(tmp_path / "run", streaming, num_frames=5, keep_states=2, **LOSSLESS).resume(streaming)
    assert torch.equal(frames_of(run.extend(streaming, num_frames=8)), called(streaming, 8))


def test_a_longer_run_can_tell_another_prompt(pipe, copy):
    copy.extend(pipe, num_frames=10, prompt="a blue square")
    story = called(pipe, 10, [PROMPT, "a blue square"], frames_per_prompt=[7, 3])
    assert torch.equal(frames_of(copy), story)


def test_a_branch_shares_its_files_and_outlives_its_parent(pipe, copy, made, tmp_path):
    branch = copy.branch(tmp_path / "branch", from_chunk=2, seed=9)
    assert copy.shared and branch.num_made == 4
    for name in ("chunks/000000-1.mkv", "chunks/000001-1.mkv", "states/000001-1.safetensors"):
        assert os.stat(copy.path / name).st_ino == os.stat(branch.path / name).st_ino
    shutil.rmtree(copy.path)
    branch.resume(pipe)
    assert branch.complete and changed(branch, frames_of(made)) == [4, 5, 6]


def test_a_branch_made_again_leaves_its_parent_as_it_was(pipe, copy, made, tmp_path):
    branch = copy.branch(tmp_path / "branch", from_chunk=4)
    branch.reroll(pipe, chunk=0, seed=9)
    assert changed(branch, frames_of(made)) == [0, 1]
    assert Run(copy.path).resume(pipe).complete and changed(copy, frames_of(made)) == []


def test_only_the_newest_states_are_kept_and_what_needs_others_says_so(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, keep_states=2).resume(pipe)
    assert sorted(path.name for path in (run.path / "states").iterdir()) == [
        "000002-1.safetensors", "000003-1.safetensors"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"behind chunk 0, which was not kept \(keep_states=2\); chunks 3 to 4"):
        run.reroll(pipe, chunk=1, seed=1)
    with pytest.raises(ValueError, match="behind chunk 1, which the branch goes on from, was not kept"):
        run.branch(tmp_path / "other", from_chunk=2)
    assert run.reroll(pipe, chunk=3, seed=1).complete and run.reroll(pipe, chunk=0, seed=1).complete


def test_another_model_or_machine_is_named_and_needs_leave(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, num_frames=4)
    with pytest.raises(Stop):
        run.resume(pipe, watcher=StopAt(3))
    other = tiny_runs.art_v()
    other.unet = tiny.anchored_unet(5, **tiny.ONE_LEVEL)
    with pytest.raises(ValueError, match="because this differs: unet of the model -> ?|unet of the model;"):
        run.resume(other)
    environment = run.manifest.environment
    run.manifest.environment = {**environment, "torch": "1.0", "device": "cuda H100"}
    run.manifest.save(run.path)
    with pytest.raises(ValueError, match=rf"torch 1.0 -> {environment['torch']}, device cuda H100 -> cpu; --allow"):
        run.resume(pipe)
    done = Run(run.path).resume(other, allow_different=True)
    assert done.complete and "unet of the model" in Run(run.path).manifest.mixed
    with pytest.raises(ValueError, match="was made with a ARTVPipeline; got a StreamingT2VPipeline"):
        run.resume(tiny_runs.streaming_t2v())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ["a circle", "a square"]}, "holds one video; got a request for 2"),
        ({"num_frames": float("inf")}, "a run has a last frame"),
        ({"num_frames": 3_000_000}, "up to 2000000 frames"),
        ({"first_frame_pipeline": print}, "first_frame_pipeline=builtin_function_or_method cannot be kept"),
        ({"codec": "libvpx"}, "codec of a run must be one of"),
        ({"keep_states": 1}, "keep_states must be a whole number from 2"),
        ({"chunk_frames": 0}, "chunk_frames must be a whole number from 1"),
        ({"fps": 0}, "fps must lie in"),
        ({"height": 15}, "height must be a multiple of"),
        ({"resume": StreamState(0)}, "a run begins at its first frame"),
    ],
)
def test_what_a_run_cannot_keep_is_refused_before_any_file_is_written(pipe, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        pipe.generate_to(tmp_path / "run", **{"prompt": PROMPT, "num_frames": 2, **options})
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_takes_no_run(pipe, copy, tmp_path):
    with pytest.raises(ValueError, match="holds a run already: go on with `longvid resume"):
        begin_run(copy.path, pipe)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        begin_run(tmp_path / "other", pipe)
    with pytest.raises(ValueError, match="is not a run folder"):
        Run(tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "reroll", "chunk": 4, "seed": 1}, "chunk must be one of the 4 that are made; got 4"),
        ({"method": "reroll", "chunk": 0, "seed": -1}, "seed must lie in"),
        ({"method": "extend", "num_frames": 7}, "num_frames must be the length of the longer video, from 8"),
    ],
)
def test_changes_that_cannot_be_made_leave_the_run_as_it_was(pipe, made, change, message):
    with pytest.raises(ValueError, match=message):
        getattr(made, change.pop("method"))(pipe, **change)
    assert Run(made.path).complete


def test_a_pipeline_that_is_interrupted_leaves_whole_chunks(pipe, tmp_path):
    class Interrupter(StopAt):
        def on_window(self, window):
            self.left -= 1
            if not self.left:
                pipe._interrupt = True

    run = begin_run(tmp_path / "run", pipe).resume(pipe, watcher=Interrupter(3))
    assert run.num_made == 2 and not run.complete
    assert run.resume(pipe).complete
