"""Videos put behind one another without encoding again."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction

import pytest
import torch

from longvid.video import VideoWriter, read_video
from longvid.video.join import JoinedVideo, join_videos

KINDS = [(".mp4", "libx264"), (".mp4", "libx265"), (".webm", "libvpx-vp9"), (".mkv", "ffv1"), (".mkv", "libx264rgb")]


def write(path, codec, num_frames, seed):
    generator = torch.Generator().manual_seed(seed)
    with VideoWriter(path, codec=codec, fps=12) as writer:
        writer.write(torch.rand(1, 3, num_frames, 16, 24, generator=generator))
    return path


def frames(path):
    return read_video(path, as_uint8=True).read()


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_a_joined_video_decodes_to_the_frames_of_its_parts_bit_for_bit(tmp_path, ending, codec):
    parts = [write(tmp_path / f"{index}{ending}", codec, 2 + index, index) for index in range(3)]
    expected = torch.cat([frames(part) for part in parts], dim=2)
    growing = JoinedVideo(tmp_path / f"growing{ending}", parts[:1], fps=Fraction(12))
    for count, part in enumerate(parts[1:], start=2):
        growing.append(part)
        assert torch.equal(frames(growing.path), expected[:, :, : sum(range(2, 2 + count))])
    assert growing.num_frames == 9
    whole = tmp_path / f"whole{ending}"
    assert join_videos(parts, whole, fps=Fraction(12)) == 9
    assert torch.equal(frames(whole), expected)
    assert read_video(whole).fps == 12 and read_video(whole).num_frames == 9


class Died(BaseException):
    pass


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "libx264"), (".mkv", "ffv1"), (".webm", "libvpx-vp9")])
@pytest.mark.parametrize("moment", [1, 2])
def test_a_joined_video_plays_after_a_part_that_was_half_appended(tmp_path, monkeypatch, ending, codec, moment):
    parts = [write(tmp_path / f"{index}{ending}", codec, 3, index) for index in range(2)]
    growing, left = JoinedVideo(tmp_path / f"growing{ending}", parts[:1], fps=Fraction(12)), [moment]

    class HalfFile(io.FileIO):
        def write(self, data):
            left[0] -= 1
            if left[0]:
                return super().write(data)
            super().write(data[: len(data) // 2])
            raise Died

    monkeypatch.setattr("longvid.video.join.open", lambda path, mode: HalfFile(path, mode), raising=False)
    with contextlib.suppress(Died):
        growing.append(parts[1])
    first = frames(parts[0])
    assert torch.equal(frames(growing.path)[:, :, :3], first)


def test_parts_of_different_kinds_are_not_joined_and_the_old_video_stays(tmp_path):
    parts = [write(tmp_path / "a.mp4", "libx264", 2, 0), write(tmp_path / "b.mp4", "libx265", 2, 0)]
    whole = write(tmp_path / "whole.mp4", "libx264", 1, 5)
    before = whole.read_bytes()
    for join in (join_videos, lambda parts, path, fps: JoinedVideo(path, parts, fps=fps)):
        with pytest.raises(ValueError, match="b.mp4 was encoded differently from the part before it: other codec"):
            join(parts, whole, fps=Fraction(12))
    assert whole.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_a_damaged_part_is_named(tmp_path):
    part = write(tmp_path / "a.mp4", "libx264", 2, 0)
    (tmp_path / "b.mp4").write_bytes(b"not a video")
    with pytest.raises(ValueError, match="b.mp4 is damaged or not a video|cannot join"):
        join_videos([part, tmp_path / "b.mp4"], tmp_path / "whole.mp4", fps=Fraction(12))
