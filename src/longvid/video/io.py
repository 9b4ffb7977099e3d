"""Video files: :func:`read_video` is an iterator over frames, :class:`VideoWriter` takes them chunk by chunk."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvid.video.codecs import CONTAINERS
from longvid.video.containers import EncodedFile, GifFile, PngFolder
from longvid.video.frames import uint8_frames
from longvid.video.sources import open_source


def read_video(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, as_uint8: bool = False
) -> VideoReader:
    """Open a video file (.mp4, .webm, .mkv, .mov, .avi, .gif) or a folder of PNGs as an iterator over its frames.

    Memory does not grow with the length of the video. The result can be iterated over again and again, each time from
    the first frame.

    Args:
        path: The file or folder; or several files of one size and rate, which are read one behind the other.
        as_uint8: Yield the 8-bit values as they are stored instead of floats in [0, 1].

    Returns:
        A :class:`VideoReader` that yields tensors ``(3, H, W)``.

    Raises:
        ValueError: if there is no such file, it is damaged, or it holds no video. Damage behind the first frame shows
            when the iteration gets there.

    Example:
        ``for frame in read_video("demo.mp4"): ...``
    """
    return VideoReader(path, as_uint8=as_uint8)


class VideoReader:
    """What :func:`read_video` returns: an iterable of frames ``(3, H, W)`` that knows their size and rate.

    Attributes:
        path: The file or folder; of several files, the first.
        fps: Frames per second as the file states them; None for a folder of PNGs that does not say.
        height: Height of every frame.
        width: Width of every frame.
    """

    SUFFIXES = (*CONTAINERS, ".gif", ".mov", ".m4v", ".avi")

    def __init__(
        self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, as_uint8: bool = False
    ) -> None:
        paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(part) for part in path]
        self._source: Any = open_source(paths, self.SUFFIXES)
        self.path, self.as_uint8 = paths[0], as_uint8
        self.fps: float | None = self._source.fps
        self.height: int = self._source.height
        self.width: int = self._source.width

    @cached_property
    def num_frames(self) -> int:
        """The number of frames: counted, not guessed from the duration, but without decoding them."""
        return self._source.count()

    def __iter__(self) -> Iterator[Tensor]:
        for index, frame in enumerate(self._source):
            if frame.shape != (self.height, self.width, 3):
                raise ValueError(
                    f"the frames of a video must have one size; frame {index} of {self.path} is "
                    f"{frame.shape[0]} x {frame.shape[1]}, the first {self.height} x {self.width}"
                )
            pixels = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))
            yield pixels if self.as_uint8 else pixels.float() / 255.0

    def read(self, num_frames: int | None = None) -> Tensor:
        """Return the first `num_frames` frames (all, if None) as one tensor ``(1, 3, F, H, W)``.

        Raises:
            ValueError: if `num_frames` is below 1 or the video has fewer frames.
        """
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames must be at least 1; got {num_frames}")
        frames = list(islice(self, num_frames))
        if num_frames is not None and len(frames) < num_frames:
            raise ValueError(f"{self.path} has {len(frames)} frames; {num_frames} were asked for")
        return torch.stack(frames, dim=1)[None]


class VideoWriter:
    """Write frames to an .mp4, .webm, .mkv or .gif file or a folder of PNGs, as many as come, in constant memory.

    The file holds exactly the frames that were written, at exactly their size. It is playable up to the last frame of
    the last finished :meth:`write` at every moment, even if the process is killed; leaving the ``with`` block, also by
    an exception, makes it an ordinary file with an index. A file that was at `path` is replaced by the first frame, not
    before.

    Args:
        path: ``.mp4``, ``.webm``, ``.mkv``, ``.gif``; without a suffix or with a trailing slash, a folder of PNGs.
        fps: Frames per second, whole or fractional: a number or a `Fraction`.
        codec: ``libx264`` (the default of .mp4 and .mkv), ``libx264rgb``, ``libx265``, ``libvpx-vp9`` (the default of
            .webm), ``libvpx`` or ``ffv1`` (.mkv only, lossless), as far as the container holds them.
        crf: Constant rate factor of the codec, from 0 (``libx264rgb``: lossless) up, larger is smaller. The default
            shows no loss to the eye: 18 for ``libx264``.
        pixel_format: FFmpeg's name, such as ``yuv444p``. By default H.264 and H.265 take ``yuv420p``, which plays
            everywhere, for even sizes, and ``yuv444p`` for odd sizes, which ``yuv420p`` cannot hold there and some
            players do not know; VP8 and VP9 take ``yuv420p``, ``libx264rgb`` and ``ffv1`` RGB.
        overwrite: Allow `path` to exist.

    Raises:
        ValueError: at once, if the path cannot be written, its suffix is unknown, it exists and `overwrite` is off, or
            codec, crf, pixel format and container do not go together.

    Example:
        .. code-block:: python

            with VideoWriter("demo.mp4", fps=8) as writer:
                for chunk in pipe.stream("a red circle moving right", num_frames=10_000):
                    writer.write(chunk.frames)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | Fraction = 8,
        codec: str | None = None,
        crf: float | None = None,
        pixel_format: str | None = None,
        overwrite: bool = True,
    ) -> None:
        self.path = Path(path)
        is_folder = not self.path.suffix or os.fspath(path).endswith(("/", os.sep))
        kind: Any = PngFolder if is_folder else _FILE_KINDS.get(self.path.suffix.lower())
        if kind is None:
            known = ", ".join(_FILE_KINDS)
            raise ValueError(f"a video must end in {known}, or be a folder without a suffix; got {os.fspath(path)!r}")
        self.fps = _check_fps(fps)
        target = self.path.resolve()  # so that a link keeps pointing to the file
        self._file = kind(target, fps=self.fps, codec=codec, crf=crf, pixel_format=pixel_format)
        (_check_folder if is_folder else _check_file)(target, overwrite)
        self._size: tuple[int, ...] | None = None
        self._closed = False
        self.num_frames = 0

    def write(self, frames: Any) -> None:
        """Append frames; when this returns, they are in the file.

        Args:
            frames: Floats in [0, 1] or uint8: tensor ``(1, 3, F, H, W)``, ``(3, F, H, W)``, ``(F, 3, H, W)`` or
                ``(3, H, W)``, array ``(1, F, H, W, 3)``, ``(F, H, W, 3)`` or ``(H, W, 3)``, PIL image or list of them.

        Raises:
            ValueError: if they are none of these, leave their range, differ in size from the frames before, have a size
                that the codec cannot hold exactly, or the writer is closed.
        """
        if self._closed:
            raise ValueError(f"the writer of {self.path} is closed")
        pixels = uint8_frames(frames)
        size = pixels.shape[1:3]
        if self._size not in (None, size):
            raise ValueError(f"the frames of {self.path} are height x width = {self._size}; got {size}")
        self._file.append(pixels)
        self._size = size
        self.num_frames += len(pixels)

    def close(self) -> None:
        """Finish the file. Closing twice does no harm."""
        if not self._closed:
            self._closed = True
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"besides, {self.path} could not be finished: {failure}")  # the first error is the cause


_FILE_KINDS: dict[str, Any] = {**dict.fromkeys(CONTAINERS, EncodedFile), ".gif": GifFile}


def _check_fps(fps: float | Fraction) -> Fraction:
    if not 0 < fps <= 1000 or not math.isfinite(fps):
        raise ValueError(f"fps must lie in (0, 1000]; got {fps}")
    # the nearest fraction that containers can hold: 23.976023976... is 24000/1001
    fraction = Fraction(fps).limit_denominator(65535)
    if not fraction:
        raise ValueError(f"fps must be at least 1/65535; got {fps}")
    return fraction


def _check_file(path: Path, overwrite: bool) -> None:
    """Raise ValueError unless the file can be written; leaves everything as it was."""
    existed = path.exists()
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    if existed and not overwrite:
        raise ValueError(f"{path} exists, and overwrite is off")
    try:
        open(path, "ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error


def _check_folder(path: Path, overwrite: bool) -> None:
    """Raise ValueError unless files can be written into the folder; leaves everything as it was."""
    existed = path.is_dir()
    if existed and not overwrite and any(path.iterdir()):
        raise ValueError(f"{path} exists and is not empty, and overwrite is off")
    probe = path / f".{os.getpid()}.partial"
    try:
        path.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
        if not existed:
            path.rmdir()
    except OSError as error:
        raise ValueError(f"cannot write the folder {path}: {error.strerror}") from error
