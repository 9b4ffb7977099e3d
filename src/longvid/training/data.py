"""A user's own captioned videos: finding them, and looking at all of them at one size and frame rate."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from longvid.video.io import VideoReader, read_video


@dataclass
class DataOptions:
    """Which videos to train on, and how they are looked at.

    Attributes:
        path: A folder of videos, each with a text file of the same name; or a CSV file with the columns path and
            caption, its paths relative to it. None: the drawn world.
        height: Height in pixels.
        width: Width in pixels; frames are resized until they cover height x width, and cropped at the centre.
        fps: Frames per second; videos are resampled to it by taking the nearest frame.
        min_frames: A video with fewer frames at that rate is an error.
    """

    path: str | None = None
    height: int = 64
    width: int = 64
    fps: float = 8.0
    min_frames: int = 5


@dataclass(frozen=True)
class Clip:
    """A video file and what it shows."""

    path: Path
    caption: str


def find_clips(source: str | Path) -> list[Clip]:
    """The captioned videos of a folder (with its subfolders) or a CSV file, in a fixed order.

    Raises:
        ValueError: if there is no such folder or file, it names no video, a video is missing or has no caption.
    """
    source = Path(source)
    if source.is_dir():
        clips = [_beside(path) for path in sorted(source.rglob("*")) if path.suffix.lower() in VideoReader.SUFFIXES]
    elif source.is_file():
        clips = list(_rows(source))
    else:
        raise ValueError(f"data must be a folder of videos or a CSV file; there is nothing at {str(source)!r}")
    if not clips:
        raise ValueError(f"{source} names no video; a video ends in {', '.join(VideoReader.SUFFIXES)}")
    _refuse([clip.path for clip in clips if not clip.path.exists()], "there is no video at")
    _refuse(
        [clip.path for clip in clips if not clip.caption],
        f"every video needs a caption{_HINTS[source.is_dir()]}; none for",
    )
    return clips


def clip_frames(path: str | Path, options: DataOptions) -> Iterator[Tensor]:
    r"""The frames of a video at the size and rate of `options`, 8-bit (3, height, width); memory does not grow.

    Frame k is frame :math:`\lfloor k\, r / r' + 1/2 \rfloor` of a file of rate r, for the rate r' asked for. A folder
    of PNGs, which states no rate, is taken as it is.

    Raises:
        ValueError: if the file is damaged or holds no video.
    """
    reader = read_video(path, as_uint8=True)
    ratio = (reader.fps or options.fps) / options.fps
    wanted = 0
    for index, frame in enumerate(reader):
        if int(wanted * ratio + 0.5) == index:
            picture = resize_and_crop(frame, options.height, options.width)
        while int(wanted * ratio + 0.5) == index:
            yield picture
            wanted += 1


def resize_and_crop(frame: Tensor, height: int, width: int) -> Tensor:
    """An 8-bit frame (3, H, W) at the smallest size that covers height x width, cropped at the centre."""
    scale = max(height / frame.shape[1], width / frame.shape[2])
    size = [max(wanted, round(scale * side)) for wanted, side in zip((height, width), frame.shape[1:], strict=True)]
    if size != list(frame.shape[1:]):
        pixels = F.interpolate(frame[None].float(), size, mode="bilinear", antialias=True)[0]
        frame = pixels.round().clamp(0, 255).to(frame.dtype)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return frame[:, top : top + height, left : left + width]


_HINTS = {True: ", a text file of the same name", False: ""}


def _beside(video: Path) -> Clip:
    text = video.with_suffix(".txt")
    return Clip(video, " ".join(text.read_text(encoding="utf-8").split()) if text.is_file() else "")


def _rows(table: Path) -> Iterator[Clip]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"path", "caption"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(
                    f"{table} must have the columns path and caption; it has no {' and no '.join(sorted(missing))}"
                )
            for row in rows:
                if not row["path"]:
                    raise ValueError(f"{table}, line {rows.line_num}: no path")
                yield Clip(table.parent / row["path"].strip(), " ".join((row["caption"] or "").split()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is no CSV file: {error}") from error


def _refuse(paths: Sequence[Path], problem: str) -> None:
    if paths:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        raise ValueError(f"{problem} {', '.join(str(path) for path in paths[:3])}{more}")
