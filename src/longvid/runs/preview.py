"""A look at a run from outside while it is made: a small contact sheet and a small clip in its folder."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from longvid.runs.watcher import RunPlan, RunWatcher
from longvid.video.atomic import move_into_place, write_atomically
from longvid.video.frames import uint8_frames
from longvid.video.io import VideoWriter, read_video
from longvid.video.sheet import contact_sheet

SHEET, CLIP = "preview.png", "preview.mp4"
SECONDS = 5.0
MAX_FRAMES = 48
MAX_SIDE = 128


class PreviewWatcher(RunWatcher):
    """Refreshes `preview.png` and `preview.mp4` in the run folder: evenly spaced frames of what is made so far, small.

    Both are replaced in one step, so that a viewer never opens half a file. The sheet has the number of each frame, the
    clip plays the same frames. Memory: at most 96 small frames.

    Args:
        seconds: They are written at most once in so many seconds, and when work ends.
        max_frames: Frames shown at most.
        max_side: Pixels of the longer side of a frame at most; a smaller one is shown as it is.
        clock: Gives seconds.

    Raises:
        ValueError: if there is nothing to show by these numbers.
    """

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        max_frames: int = MAX_FRAMES,
        max_side: int = MAX_SIDE,
        clock: Callable[[], float] = time.monotonic,
    ):
        if not seconds >= 0 or max_frames < 1 or max_side < 2:
            raise ValueError(
                f"expected seconds >= 0, max_frames >= 1 and max_side >= 2; got {seconds}, {max_frames}, {max_side}"
            )
        self._seconds, self._max_frames, self._max_side, self._clock = seconds, max_frames, max_side, clock
        self._frames: dict[int, np.ndarray] = {}
        self._folder: Path | None = None
        self._fps, self._stride, self._written = 8.0, 1, -float("inf")

    def on_plan(self, plan: RunPlan) -> None:
        """Begin with the first frame of every chunk that is there."""
        self._folder, self._fps, self._stride = plan.path, plan.fps, 1
        self._frames.clear()
        for start, path in plan.parts:
            for frame in islice(read_video(path, as_uint8=True), 1):
                self._add(start, frame.permute(1, 2, 0).numpy())

    def on_window(self, window: Any) -> None:
        """Show its frames."""
        for number, frame in enumerate(uint8_frames(window.frames), start=window.start):
            self._add(number, frame)
        if self._clock() - self._written >= self._seconds:
            self._write()

    def on_end(self, error: BaseException | None) -> None:
        """Show all; what stopped the run is not hidden by a preview that cannot be written."""
        try:
            self._write()
        except (OSError, ValueError):
            if error is None:
                raise

    def _add(self, number: int, frame: np.ndarray) -> None:
        if number % self._stride:
            return
        self._frames[number] = _small(frame, self._max_side)
        if len(self._frames) > 2 * self._max_frames:
            self._stride *= 2
            self._frames = {key: kept for key, kept in self._frames.items() if key % self._stride == 0}

    def _write(self) -> None:
        if self._folder is None or not self._frames:
            return
        numbers = sorted(self._frames)
        numbers = numbers[:: -(-len(numbers) // self._max_frames)]
        frames = [self._frames[number] for number in numbers]
        page = io.BytesIO()
        contact_sheet(frames, max_frames=len(frames), labels=[str(number) for number in numbers]).save(page, "PNG")
        write_atomically(self._folder / SHEET, page.getvalue())
        part = self._folder / f".{CLIP}.{os.getpid()}.partial.mp4"
        try:
            with VideoWriter(part, fps=self._fps, crf=23) as writer:
                writer.write(np.stack(frames))
            move_into_place(part, self._folder / CLIP)
        finally:
            part.unlink(missing_ok=True)
        self._written = self._clock()


def _small(frame: np.ndarray, max_side: int) -> np.ndarray:
    """At most so large, with even sides."""
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = [max(2, round(side * scale) // 2 * 2) for side in (width, height)]
    if size == [width, height]:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[0], size[1]), Image.Resampling.BOX))
