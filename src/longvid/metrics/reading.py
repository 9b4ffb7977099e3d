"""What is evaluated: which videos a path means, and whether a codec has already changed their numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvid.video.io import VideoReader, read_video

_LOSSLESS = {"ffv1", "rawvideo", "png", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "qtrle"}


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        path: What it is called.
        kind: ``"folder of PNGs"``, ``"file"``, or how many files were read one behind the other.
        codec: Name of the codec, with its pixel format.
        lossless: Whether the frames are those that were written; None where the file does not tell.
        height: In pixels.
        width: In pixels.
        fps: Frames per second; None where the source does not say.
    """

    path: str
    kind: str
    codec: str
    lossless: bool | None
    height: int
    width: int
    fps: float | None

    def in_words(self) -> str:
        """One sentence for the page."""
        verdict = {
            True: "lossless: the numbers are those of the frames themselves",
            False: "lossy: the codec has changed the frames, and with them the numbers, most of all flicker, sharpness "
            "and warp error",
            None: "possibly lossy: this codec can be either, and the file does not tell",
        }
        return f"{self.kind}, {self.codec}, {verdict[self.lossless]}"


def find_videos(path: str | os.PathLike[str]) -> list[Path]:
    """The videos that a path means: a file, a folder of PNGs, or a folder of video files.

    Raises:
        ValueError: if there is nothing, or a folder holds neither PNGs nor videos.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no video at {path}")
    if not path.is_dir():
        return [path]
    entries = sorted(path.iterdir())
    if any(entry.suffix.lower() == ".png" for entry in entries):
        return [path]
    files = [entry for entry in entries if entry.suffix.lower() in VideoReader.SUFFIXES and entry.is_file()]
    if not files:
        raise ValueError(f"expected a folder of PNGs or of videos ({', '.join(VideoReader.SUFFIXES)}); got {path}")
    return files


def open_video(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], name: str | None = None
) -> tuple[VideoReader, Reading]:
    """The reader of a video, and what it reads.

    Args:
        path: As `read_video` takes it; of several files, all should be encoded as the first is.
        name: What it is called; by default its path, of several files the folder of the first.

    Raises:
        ValueError: if there is no video or it is damaged.
    """
    reader = read_video(path)
    if isinstance(path, (str, os.PathLike)):
        kind, default = ("folder of PNGs" if reader.path.is_dir() else "file"), os.fspath(path)
    else:
        kind = "file" if len(path) == 1 else f"{len(path)} files"
        default = os.fspath(reader.path.parent)
    codec, lossless = ("PNG", True) if reader.path.is_dir() else _codec(reader.path)
    return reader, Reading(name or default, kind, codec, lossless, reader.height, reader.width, reader.fps)


def _codec(path: Path) -> tuple[str, bool | None]:
    import av

    with av.open(str(path)) as file:
        context: Any = file.streams.video[0].codec_context
        name, pixel_format = context.name, context.pix_fmt
    exact = av.VideoFormat(pixel_format).is_rgb
    lossless = (True if exact else None) if name in _LOSSLESS else None if name == "h264" and exact else False
    if name == "gif":
        return "GIF (256 colours per frame)", False
    return f"{name}, {pixel_format}", lossless
