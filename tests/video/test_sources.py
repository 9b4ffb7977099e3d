from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from longvid.video import VideoWriter, read_video


def write(path: Path, num_frames: int = 20) -> Path:
    """A video whose frames grow brighter."""
    with VideoWriter(path, fps=8) as writer:
        writer.write(
            np.broadcast_to(10 * np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (num_frames, 32, 32, 3))
        )
    return path


def trimmed(path: Path, source: Path, start: int) -> Path:
    """`source` from frame `start` on, its packets copied: the earlier ones lie before the start of the edit list."""
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = read.streams.video[0]
        copied = written.add_stream_from_template(stream)
        assert stream.time_base is not None
        shift = int(Fraction(start, 8) / stream.time_base)
        for packet in read.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                written.mux(packet)
    return path


@pytest.mark.parametrize("start", [0, 5, 13])
def test_frames_that_a_trim_hides_are_neither_counted_nor_read(tmp_path, start):
    path = trimmed(tmp_path / "trimmed.mp4", write(tmp_path / "whole.mp4"), start)
    with av.open(str(path)) as file:
        hidden = sum(packet.size > 0 for packet in file.demux(video=0)) - (20 - start)
        assert (hidden > 0) == (start > 0)  # at least those from the key frame on are still there
    video = read_video(path)
    frames = list(video)
    assert video.num_frames == len(frames) == 20 - start
    assert float(frames[0].mean()) == pytest.approx(start * 10 / 255, abs=0.02)


def test_a_file_that_breaks_before_it_is_counted_is_named(tmp_path):
    video = read_video(write(tmp_path / "video.mp4"))
    (tmp_path / "video.mp4").write_bytes(b"overwritten")
    with pytest.raises(ValueError, match="video.mp4 is damaged: its frames cannot be counted"):
        _ = video.num_frames
