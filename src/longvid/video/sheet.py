"""A video on one page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from longvid.video.frames import uint8_frames

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP = 4
_LABEL_HEIGHT = 14


def contact_sheet(
    frames: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    columns: int | None = None,
    max_frames: int = 64,
    labels: bool | Sequence[object] = True,
) -> Image:
    """Draw evenly spaced frames of a video on one page, row by row, each with a label below it.

    Args:
        frames: Anything :meth:`VideoWriter.write` takes, or an iterable of such pieces: ``read_video(path)``, or
            the frames of the chunks of a stream. An iterable is read once, holding about ``2 * max_frames`` frames.
        path: Also save the page here, as the kind of image that its suffix says.
        columns: Frames per row; by default as many as make the page about square.
        max_frames: Draw at most so many frames. Of a longer video, the first and the last are drawn and, as evenly as
            possible, those between.
        labels: True writes the frame numbers, counted from 0, False nothing; or one label for each frame of the video,
            those that are not drawn included.

    Returns:
        The page, in mode RGB.

    Raises:
        ValueError: if there are no frames, their sizes differ, there are fewer labels than frames, a number is below 1,
            or `path` cannot be written.
    """
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1; got {max_frames}")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns}")
    if path is not None:
        _check_image_path(Path(path))
    numbers, images = _pick_evenly(frames, max_frames)
    page = _draw(images, _texts(labels, numbers), columns)
    if path is not None:
        page.save(path)
    return page


def _texts(labels: bool | Sequence[object], numbers: list[int]) -> list[str] | None:
    if isinstance(labels, bool):
        return [str(number) for number in numbers] if labels else None
    if len(labels) <= numbers[-1]:
        raise ValueError(f"expected a label for each of at least {numbers[-1] + 1} frames; got {len(labels)} labels")
    return [str(labels[number]) for number in numbers]


def _draw(images: list[np.ndarray], texts: list[str] | None, columns: int | None) -> Image:
    from PIL import Image, ImageDraw

    height, width = images[0].shape[:2]
    if columns is None:
        columns = max(1, round(math.sqrt(len(images) * height / width)))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell_height, cell_width = height + _GAP + (_LABEL_HEIGHT if texts else 0), width + _GAP
    page = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), "white")
    draw = ImageDraw.Draw(page)
    for cell, image in enumerate(images):
        left, top = _GAP + cell % columns * cell_width, _GAP + cell // columns * cell_height
        page.paste(Image.fromarray(image), (left, top))
        if texts:
            draw.text((left, top + height + 1), texts[cell], fill="black")
    return page


def _check_image_path(path: Path) -> None:
    from PIL import Image

    writable = [suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE]
    if path.suffix.lower() not in writable:
        raise ValueError(f"a contact sheet must have the suffix of an image, such as .png or .jpg; got {str(path)!r}")
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"cannot write the contact sheet {path}")


def _pick_evenly(frames: Any, max_frames: int) -> tuple[list[int], list[np.ndarray]]:
    """Choose up to `max_frames` frames; returns their numbers and pixels ``(H, W, 3)``.

    The length is not known beforehand, so every stride-th frame is kept, and whenever they become too many, every other
    one is dropped and the stride doubled.
    """
    kept: list[tuple[int, np.ndarray]] = []
    stride, last = 1, None
    for number, frame in enumerate(_single_frames(frames)):
        if last is not None and frame.shape != last[1].shape:
            raise ValueError(
                f"the frames of a video must have one size; frame {number} is {frame.shape[0]} x {frame.shape[1]}, "
                f"those before are {last[1].shape[0]} x {last[1].shape[1]}"
            )
        last = (number, frame)
        if number % stride == 0:
            kept.append(last)
        if len(kept) > 2 * max_frames:
            kept, stride = kept[::2], 2 * stride
    if last is None:
        raise ValueError("a contact sheet needs at least one frame; got none")
    if kept[-1][0] != last[0]:
        kept.append(last)
    wanted = np.linspace(0, last[0], min(max_frames, last[0] + 1))
    available = np.array([number for number, _ in kept])
    chosen = sorted({int(np.abs(available - number).argmin()) for number in wanted})
    return [kept[index][0] for index in chosen], [kept[index][1] for index in chosen]


def _single_frames(frames: Any) -> Iterable[np.ndarray]:
    whole = isinstance(frames, (Tensor, np.ndarray)) or hasattr(frames, "convert")
    if not whole and not isinstance(frames, Iterable):
        raise ValueError(f"frames must be a video or an iterable of frames; got {type(frames).__name__}")
    for piece in [frames] if whole else frames:
        yield from uint8_frames(piece)
