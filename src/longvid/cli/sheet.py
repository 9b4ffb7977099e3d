"""The contact sheet of a video that is still being made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class FrameSheet:
    """Keeps evenly spaced frames of a stream and draws them on one page; memory does not grow with the video.

    Args:
        path: The page.
        num_frames: Frames of the whole video.
        max_frames: Frames on the page.
    """

    def __init__(self, path: Path, *, num_frames: int, max_frames: int = 64):
        self.path = path
        self._wanted = {int(number) for number in np.linspace(0, num_frames - 1, min(num_frames, max_frames)).round()}
        self._frames: dict[int, np.ndarray] = {}

    def add(self, chunk: Any) -> None:
        """Take the frames of a chunk."""
        from longvid.video.frames import uint8_frames

        for number, frame in enumerate(uint8_frames(chunk.frames), start=chunk.start):
            if number in self._wanted:
                self._frames[number] = frame

    def close(self) -> None:
        """Draw the page."""
        from longvid.video.sheet import contact_sheet

        if self._frames:
            numbers = [str(number) for number in self._frames]
            contact_sheet(self._frames.values(), self.path, max_frames=len(numbers), labels=numbers)
