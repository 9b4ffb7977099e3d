"""Pictures of a whole video, in fixed memory: a slice through time, a strip of frames, the largest steps."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from longvid.metrics.base import check_frames


class EvenlyKept:
    """At most twice `number` of things that come one after another, evenly spaced from the first on."""

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"number must be at least 1; got {number}")
        self._number, self._stride, self._count = number, 1, 0
        self.kept: list[tuple[int, Any]] = []

    def wants_next(self) -> bool:
        """Whether the next thing will be kept."""
        return self._count % self._stride == 0

    def add(self, thing: Any) -> None:
        """Take the next thing."""
        if self.wants_next():
            self.kept.append((self._count, thing))
            if len(self.kept) > 2 * self._number:
                self.kept, self._stride = self.kept[::2], 2 * self._stride
        self._count += 1


class XTSlice:
    """The X-T slice: one row of pixels of every frame, side by side, so that time runs to the right.

    Even motion draws straight slanted lines, a standstill draws horizontal ones, and a cut or a seam draws a vertical edge.
    Of a long video every n-th frame is drawn. Memory: 2 * `columns` rows.

    Args:
        row: Which row, as a share of the height.
        columns: The picture has at most twice as many columns.
    """

    def __init__(self, *, row: float = 0.5, columns: int = 512) -> None:
        if not 0 <= row <= 1:
            raise ValueError(f"row must lie in [0, 1]; got {row}")
        self._row = row
        self._rows = EvenlyKept(columns)
        self._size: tuple[int, int] | None = None

    def update(self, frames: Tensor) -> None:
        """Take the next frames ``(F, 3, H, W)`` in [0, 1]."""
        self._size = check_frames(frames, self._size)
        row = min(int(self._row * self._size[0]), self._size[0] - 1)
        for frame in frames:
            self._rows.add(_levels(frame[:, row]))

    def compute(self) -> np.ndarray:
        """The picture, uint8 ``(W, T, 3)``: the place along the row runs down, time to the right."""
        if not self._rows.kept:
            raise ValueError("an X-T slice needs at least one frame; got none")
        return np.stack([row.T for _, row in self._rows.kept], axis=1)


class FrameStrip:
    """A few small frames, evenly spaced, the first and the last among them. Memory: 8 * `number` small frames."""

    def __init__(self, *, number: int = 8, side: int = 160) -> None:
        self._frames, self._side, self._number = EvenlyKept(4 * number), side, number
        self._count, self._last = 0, torch.zeros(3, 1, 1)

    def update(self, frames: Tensor) -> None:
        """Take the next frames ``(F, 3, H, W)`` in [0, 1]."""
        for frame in frames:
            self._frames.add(shrink(frame, self._side) if self._frames.wants_next() else None)
        self._count, self._last = self._count + len(frames), frames[-1].clone()

    def compute(self) -> list[tuple[int, np.ndarray]]:
        """Number and pixels, uint8 ``(h, w, 3)``, of at most `number` frames."""
        kept = dict(self._frames.kept) | {self._count - 1: shrink(self._last, self._side)}
        numbers = np.array(sorted(kept))
        wanted = np.linspace(0, self._count - 1, min(self._number, len(numbers)))
        chosen = sorted({int(numbers[np.abs(numbers - place).argmin()]) for place in wanted})
        return [(number, kept[number]) for number in chosen]


class LargestSteps:
    """The frames before and after the largest changes, in fixed memory.

    Args:
        borders: Only look at steps that end in one of these frames; None looks at all.
        number: How many are kept.
        side: Longest side of the kept pictures, in pixels.
    """

    def __init__(self, *, borders: Iterable[int] | None = None, number: int = 4, side: int = 192) -> None:
        self._borders = None if borders is None else frozenset(borders)
        self._number, self._side = number, side
        self._count, self._last = 0, None
        self._kept: list[tuple[float, int, np.ndarray, np.ndarray]] = []

    def update(self, frames: Tensor) -> None:
        """Take the next frames ``(F, 3, H, W)`` in [0, 1]."""
        for frame in frames.detach().float():
            if self._last is not None and (self._borders is None or self._count in self._borders):
                self._step(self._last, frame)
            self._last = frame.clone()
            self._count += 1

    def _step(self, before: Tensor, after: Tensor) -> None:
        change = float((after - before).abs().mean() * 255)
        if len(self._kept) == self._number and change <= self._kept[-1][0]:
            return
        self._kept.append((change, self._count, shrink(before, self._side), shrink(after, self._side)))
        self._kept = sorted(self._kept, key=lambda step: (-step[0], step[1]))[: self._number]

    def compute(self) -> list[tuple[float, int, np.ndarray, np.ndarray]]:
        """Change in grey levels, number of the frame behind it, the frames before and after; the largest first."""
        return [step for step in self._kept if step[0] > 0]


def shrink(frame: Tensor, side: int) -> np.ndarray:
    """A frame ``(3, H, W)`` as uint8 ``(h, w, 3)``, no side longer than `side`."""
    longest = max(frame.shape[-2:])
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in frame.shape[-2:]]
        frame = interpolate(frame[None].float(), size, mode="bilinear", antialias=True)[0]
    return _levels(frame).transpose(1, 2, 0)


def png_uri(pixels: np.ndarray, *, side: int | None = None) -> str:
    """Pixels, uint8 ``(h, w, 3)``, as a ``data:`` address that a page can hold; shrunk if a side is longer than `side`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if side is not None and max(image.size) > side:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _levels(pixels: Tensor) -> np.ndarray:
    return (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
