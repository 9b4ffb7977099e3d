"""Where frames come from: video files through PyAV, folders of PNGs through PIL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def open_source(paths: Sequence[Path], suffixes: Sequence[str]) -> FileSource | PngSource | JoinedSource:
    """Frames of one file, of one folder of PNGs, or of several files, one behind the other.

    Args:
        paths: The files, or the folder.
        suffixes: What files may end in.

    Raises:
        ValueError: if there is no path, nothing at one of them, or no video.
    """
    if not paths:
        raise ValueError("expected at least one video; got none")
    if len(paths) == 1 and paths[0].is_dir():
        return PngSource(paths[0])
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no video at {path}")
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"a video must be a folder of PNGs or end in {', '.join(suffixes)}; got {path}")
    return FileSource(paths[0]) if len(paths) == 1 else JoinedSource(paths)


class FileSource:
    """Frames ``(H, W, 3)`` of a video file; each iteration opens it anew.

    PyAV is used directly because imageio's PyAV plugin runs Python's garbage collector whenever it closes a file, which
    costs 0.2 s where torch and diffusers are loaded, a hundred times as much as to read a short clip, and because it
    cannot count the frames of a fragmented or WebM file.
    """

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        try:
            with av.open(str(path)) as file:
                stream: Any = file.streams.video[0]
                self.fps = float(stream.guessed_rate or 0) or None
                first = next(file.decode(stream), None)
                index = getattr(stream, "index_entries", ())  # PyAV below 15 does not show it
                end = index[len(index) - 1].pos + index[len(index) - 1].size if len(index) else 0
        except (av.FFmpegError, IndexError, AttributeError) as error:  # no video stream; a stream of an unknown codec
            raise ValueError(f"{path} is damaged or not a video") from error
        if first is None:
            raise ValueError(f"{path} holds no frames")
        if end > path.stat().st_size:  # FFmpeg would only end early
            raise ValueError(f"{path} is damaged: it has {path.stat().st_size} bytes of at least {end}")
        self.height, self.width = first.height, first.width

    def __iter__(self) -> Iterator[np.ndarray]:
        import av
        from av.video.reformatter import VideoReformatter

        index = 0
        try:
            with av.open(str(self.path)) as file:
                file.streams.video[0].thread_type = "AUTO"
                # one of our own: the one that PyAV shares keeps its threads, and a later fork can hang on them
                reformatter = VideoReformatter()
                for frame in file.decode(video=0):
                    yield reformatter.reformat(frame, format="rgb24").to_ndarray()
                    index += 1
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{self.path} is damaged: frame {index} cannot be read ({error})") from error

    def count(self) -> int:
        """The number of frames that iteration gives, without decoding them.

        Packets before the start of an edit list are decoded for the sake of those behind them, but never shown.
        """
        import av

        try:
            with av.open(str(self.path)) as file:
                return sum(packet.size > 0 and not packet.is_discard for packet in file.demux(video=0))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{self.path} is damaged: its frames cannot be counted ({error})") from error


class JoinedSource:
    """Frames of several files, one behind the other; every file is opened when its turn comes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        first = FileSource(paths[0])
        self.fps, self.height, self.width = first.fps, first.height, first.width

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            source = FileSource(path)
            if source.fps != self.fps:
                raise ValueError(
                    f"{path} has {source.fps} frames per second; the first, {self.paths[0]}, has {self.fps}"
                )
            yield from source

    def count(self) -> int:
        """The number of frames in all files."""
        return sum(FileSource(path).count() for path in self.paths)


class PngSource:
    """Frames ``(H, W, 3)`` of a folder of PNGs, in the order of the numbers in their names."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((p for p in folder.iterdir() if p.suffix.lower() == ".png"), key=_natural_order)
        if not self.paths:
            raise ValueError(f"the folder {folder} holds no PNG files")
        self.fps = self._read_fps()
        self.height, self.width = next(iter(self)).shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        from PIL import Image

        for path in self.paths:
            try:
                with Image.open(path) as image:
                    frame = np.asarray(image.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:  # PIL raises SyntaxError for some broken PNGs
                raise ValueError(f"{path} is damaged or not a PNG image: {error}") from error
            yield frame

    def count(self) -> int:
        """The number of frames."""
        return len(self.paths)

    def _read_fps(self) -> float | None:
        from PIL import Image

        try:
            with Image.open(self.paths[0]) as image:
                return float(Fraction(image.info["fps"]))
        except (OSError, SyntaxError, ValueError, KeyError, ZeroDivisionError, TypeError):
            return None  # a damaged file is reported when its frame is read


def _natural_order(path: Path) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]
