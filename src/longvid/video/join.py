"""Video files put behind one another without encoding again: every frame decodes to what it was in its own file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from longvid.video.atomic import move_into_place
from longvid.video.codecs import CONTAINERS
from longvid.video.muxing import FINISHED, mux, mux_fragment

_BOX_HEADER = 8


class JoinedVideo:
    """A growing video file, playable up to the last appended part at every moment.

    Every part begins with a frame that needs no other, as a file of `VideoWriter` does, so packets are copied and the
    joined video decodes to the frames of the parts, bit for bit.

    Args:
        path: ``.mp4``, ``.webm`` or ``.mkv``, of the same kind as its parts. It is put in place by one rename.
        parts: Files that it begins with.
        fps: Frames per second.

    Raises:
        ValueError: if a part is damaged or was encoded differently from the first.
        OSError: if the disk is full.
    """

    def __init__(self, path: Path, parts: Sequence[Path], *, fps: Fraction) -> None:
        self.path, self.fps, self.container = path, fps, CONTAINERS[path.suffix]
        self.num_frames = self._num_parts = 0
        self._setup: tuple[Any, ...] | None = None
        if parts:
            self._begin(parts)

    def append(self, part: Path) -> None:
        """Put one more file at the end; when this returns, it is on the disk.

        Raises:
            ValueError: if the part is damaged or was encoded differently from the first.
            OSError: if the disk is full.
        """
        if not self._num_parts:
            return self._begin([part])
        fragment = self._fragment(part)
        # an MP4 reader ends at a box without size and name, so this box counts once the disk has all of it
        late = _BOX_HEADER if self.container == "mp4" else 0
        with open(self.path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.write(bytes(late) + fragment[late:])
            file.flush()
            os.fsync(file.fileno())
            if late:
                file.seek(end)
                file.write(fragment[:late])
                file.flush()
                os.fsync(file.fileno())

    def _begin(self, parts: Sequence[Path]) -> None:
        partial = _partial(self.path)
        try:
            with open(partial, "wb") as file:
                for part in parts:
                    file.write(self._fragment(part))
            move_into_place(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _fragment(self, part: Path) -> bytes:
        with _packets_of(part) as (stream, packets):
            self._setup = _same_setup(stream, self._setup, part)
            counted = _Counted(packets, self.num_frames, self.fps)
            fragment = mux_fragment(counted, self._num_parts, container=self.container, fps=self.fps, template=stream)
        self.num_frames += counted.count
        self._num_parts += 1
        return fragment


def join_videos(parts: Sequence[Path], path: Path, *, fps: Fraction) -> int:
    """Join files into one ordinary file with an index, and count its frames.

    Args:
        parts: Files of one kind and one encoding, at least one.
        path: Replaced in one step, when the new file is complete and on the disk.
        fps: Frames per second.

    Raises:
        ValueError: if a part is damaged or was encoded differently from the first.
        OSError: if the disk is full.
    """
    import av

    container, partial, number = CONTAINERS[path.suffix], _partial(path), [0]

    def every_packet(setup: Any) -> Iterator[Any]:
        for part in parts:
            with _packets_of(part) as (stream, packets):
                _same_setup(stream, setup, part)
                counted = _Counted(packets, number[0], fps)
                yield from counted
                number[0] += counted.count

    try:
        with av.open(str(parts[0])) as first:
            template = first.streams.video[0]
            packets = every_packet(_same_setup(template, None, parts[0]))
            mux(str(partial), packets, container=container, fps=fps, options=FINISHED[container], template=template)
        move_into_place(partial, path)
    except av.FFmpegError as error:
        if 0 < (error.errno or 0) < 200:  # of the operating system, such as a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ValueError(f"cannot join the parts of {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return number[0]


class _Counted:
    """Packets with time stamps that count on from a number of frames; `count` says how many there were."""

    def __init__(self, packets: Iterable[Any], first: int, fps: Fraction):
        self._packets, self._first, self._fps, self.count = packets, first, fps, 0

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets:
            packet.time_base = 1 / self._fps
            packet.pts, packet.duration = self._first + self.count, 1
            self.count += 1
            yield packet


@contextmanager
def _packets_of(part: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    import av

    try:
        with av.open(str(part)) as source:
            stream = source.streams.video[0]
            yield stream, (packet for packet in source.demux(stream) if packet.size)
    except (av.error.InvalidDataError, IndexError) as error:
        raise ValueError(f"{part} is damaged or not a video") from error


def _same_setup(stream: Any, setup: tuple[Any, ...] | None, part: Path) -> tuple[Any, ...]:
    context = stream.codec_context
    found = (context.name, context.width, context.height, context.pix_fmt, bytes(context.extradata or b""))
    if setup not in (None, found):
        names = ("codec", "width", "height", "pixel format", "encoder settings")
        different = [name for name, a, b in zip(names, setup, found, strict=True) if a != b]  # type: ignore[arg-type]
        raise ValueError(f"{part} was encoded differently from the part before it: other {', '.join(different)}")
    return found


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
