"""The frames of a run as they were made: kept beside the encoded video, and followed by everything that changes it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import tiny_runs
from longvid import Run, read_video
from longvid.runs.manifest import NAME, checksum
from longvid.video.frames import uint8_frames
from tiny_runs import PROMPT, begin_run, frames_of, kept_frames


@pytest.fixture(scope="module")
def pipe():
    return tiny_runs.art_v()


@pytest.fixture(scope="module")
def made(pipe, tmp_path_factory):
    """A finished run of 7 frames in chunks of 2, H.264; tests work on copies."""
    return begin_run(tmp_path_factory.mktemp("made") / "run", pipe).resume(pipe)


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


def called(pipe, num_frames):
    generator = torch.Generator().manual_seed(3)
    frames = pipe(PROMPT, num_frames=num_frames, generator=generator, output_type="pt").frames[0]
    return torch.from_numpy(uint8_frames(frames)).permute(0, 3, 1, 2)


def names(run):
    return sorted(path.name for path in (run.path / "frames").iterdir())


def test_a_run_keeps_the_frames_of_the_call_which_its_video_does_not(pipe, made):
    assert made.video.suffix == ".mp4" and not torch.equal(frames_of(made), called(pipe, 7))
    assert torch.equal(kept_frames(made), called(pipe, 7))
    reader = made.read()
    assert (reader.num_frames, reader.fps, reader.height, reader.width) == (7, 8.0, 16, 16)
    assert torch.equal(torch.stack(list(reader)), called(pipe, 7).float() / 255)


def test_the_frames_of_a_streamed_window_are_kept_too(tmp_path):
    pipe = tiny_runs.streaming_t2v()
    run = begin_run(tmp_path / "run", pipe, num_frames=7).resume(pipe)
    assert torch.equal(kept_frames(run), called(pipe, 7))


def test_they_follow_a_chunk_that_is_made_again(pipe, copy, made):
    copy.reroll(pipe, chunk=1, seed=8)
    same = [torch.equal(a, b) for a, b in zip(kept_frames(copy), kept_frames(made), strict=True)]
    assert same == [True, True, False, False, True, True, True]
    assert names(copy) == ["000000-1.mkv", "000001-2.mkv", "000002-1.mkv", "000003-1.mkv"]


def test_they_follow_a_longer_run_and_a_branch(pipe, copy, made, tmp_path):
    branch = copy.branch(tmp_path / "branch", from_chunk=2)
    shared = [(run.path / "frames" / "000001-1.mkv").stat().st_ino for run in (copy, branch)]
    assert branch.read().num_frames == 4 and shared[0] == shared[1]
    copy.extend(pipe, num_frames=10)
    assert torch.equal(kept_frames(copy), called(pipe, 10))
    assert torch.equal(kept_frames(branch.resume(pipe)), kept_frames(made))


def test_what_a_dead_process_left_half_written_is_removed(pipe, copy):
    left = copy.path / "frames" / "000004-1.part.mkv"
    left.write_bytes(b"half")
    copy.resume(pipe)
    assert not left.exists() and len(names(copy)) == 4


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ({}, True),
        ({"codec": "libx264rgb"}, True),
        ({"codec": "libx264rgb", "crf": 0}, True),  # lossless too, but a file does not tell
        ({"codec": "ffv1"}, False),
        ({"codec": "ffv1", "pixel_format": "yuv420p"}, True),
        ({"keep_frames": False}, False),
    ],
)
def test_they_have_files_of_their_own_only_where_the_video_does_not_hold_them(pipe, tmp_path, options, apart):
    run = begin_run(tmp_path / "run", pipe, num_frames=4, **options).resume(pipe)
    assert (run.path / "frames").exists() == apart
    exact = options != {"keep_frames": False}
    assert torch.equal(kept_frames(run), called(pipe, 4)) == exact
    if options.get("crf") != 0:
        assert torch.equal(kept_frames(run), frames_of(run)) != apart


def test_a_run_of_the_first_format_goes_on_without_them(pipe, tmp_path):
    run = begin_run(tmp_path / "run", pipe, keep_frames=False)
    values = json.loads((run.path / NAME).read_text())
    del values["options"]["keep_frames"]
    values["format_version"] = 1
    reseal(run, values)
    whole = begin_run(tmp_path / "whole", pipe, keep_frames=False).resume(pipe)
    old = Run(run.path).resume(pipe)
    assert old.complete and torch.equal(frames_of(old), frames_of(whole))
    values = json.loads((run.path / NAME).read_text())
    for chunk in values["chunks"]:
        del chunk["frames_bytes"], chunk["frames_sha256"]
    del values["options"]["keep_frames"]
    values["format_version"] = 1
    reseal(run, values)
    assert Run(run.path).extend(pipe, num_frames=9).complete


def reseal(run, values):
    values["checksum"] = checksum({name: value for name, value in values.items() if name != "checksum"})
    (run.path / NAME).write_text(json.dumps(values))


def test_files_that_are_missing_damaged_or_disagree_are_refused(pipe, copy):
    path = copy.path / "frames" / "000001-1.mkv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"000001-1.mkv is damaged: it has \d+ bytes; expected \d+"):
        copy.read()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="its digest does not fit"):
        copy.read()
    path.unlink()
    with pytest.raises(ValueError, match="000001-1.mkv is missing"):
        copy.read()
    values = json.loads((copy.path / NAME).read_text())
    values["chunks"][1].update(frames_bytes=None, frames_sha256=None)
    reseal(copy, values)
    with pytest.raises(ValueError, match="chunk 1 and the options do not agree on whether frames are kept apart"):
        Run(copy.path)


def test_a_run_without_frames_has_nothing_to_read(pipe, tmp_path):
    with pytest.raises(ValueError, match="has no frames yet"):
        begin_run(tmp_path / "run", pipe).read()


def test_keep_frames_is_true_or_false():
    with pytest.raises(ValueError, match="keep_frames must be True or False; got 1"):
        tiny_runs.RunOptions(keep_frames=1)


def test_several_files_are_read_one_behind_the_other(made):
    files = made.readable()
    each = [read_video(path).read() for path in files]
    assert torch.equal(read_video(files).read(), torch.cat(each, dim=2))
    assert read_video(files[2:]).num_frames == 3 and read_video(files[2:]).path == files[2]
    assert torch.equal(read_video(files).read(3), torch.cat(each, dim=2)[:, :, :3])
    assert read_video(files[3:]).num_frames == 1 and read_video(files[3:]).fps == 8


def test_files_that_do_not_belong_together_are_refused(made, tmp_path):
    from longvid import VideoWriter

    for name, fps, size in (("slow.mkv", 4, 16), ("large.mkv", 8, 32)):
        with VideoWriter(tmp_path / name, fps=fps, codec="ffv1") as writer:
            writer.write(torch.zeros(1, 3, 2, size, size))
    first = made.readable()[0]
    with pytest.raises(ValueError, match="slow.mkv has 4.0 frames per second; the first, .*000000-1.mkv, has 8.0"):
        read_video([first, tmp_path / "slow.mkv"]).read()
    with pytest.raises(ValueError, match="must have one size; frame 2 .* is 32 x 32, the first 16 x 16"):
        read_video([first, tmp_path / "large.mkv"]).read()
    with pytest.raises(ValueError, match="at least one video"):
        read_video([])
    with pytest.raises(ValueError, match="there is no video at nowhere.mkv"):
        read_video([first, "nowhere.mkv"])
