"""The progress bar of a stream: frames done, the step within the frame, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

_FORMAT = "{desc}{percentage:3.0f}%|{bar}| {frames}/{total:.0f} frames [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Bar(tqdm):
    @property
    def format_dict(self) -> dict[str, Any]:
        values = super().format_dict
        return {**values, "frames": int(values["n"] + 1e-6)}


class FrameBar:
    """A bar on stderr over the frames of a video that also moves within a frame, so that a time left is known early.

    Args:
        num_frames: Frames of the whole video.
        done: How many of them there are already.
        disable: Whether nothing is drawn.

    Attributes:
        note: Is shown behind the step.
    """

    def __init__(self, num_frames: int, *, done: int = 0, disable: bool = False):
        terminal = sys.stderr.isatty()
        self._bar = _Bar(
            total=num_frames, initial=done, unit="frame", bar_format=_FORMAT, dynamic_ncols=True, disable=disable, leave=True,
            mininterval=0.1 if terminal else 10.0, maxinterval=float("inf"), file=sys.stderr,
        )  # fmt: skip
        self._num_done = done
        self.note = ""
        self._window_size = 1
        self._drawn = time.monotonic()

    def on_step(self, pipe: Any, step: int, _timestep: Any, _tensors: dict) -> dict:
        """A pipeline's `callback_on_step_end`."""
        part = (step + 1) / pipe.num_timesteps
        text = f"step {step + 1}/{pipe.num_timesteps}"
        self._bar.set_postfix_str(f"{text}, {self.note}" if self.note else text, refresh=False)
        self._move_to(self._num_done + self._window_size * part)
        return {}

    def on_chunk(self, num_frames: int) -> None:
        """Count the frames of a finished window."""
        self._num_done, self._window_size = self._num_done + num_frames, num_frames
        self._move_to(self._num_done)

    def take_back(self, num_frames: int) -> None:
        """Count frames as missing again."""
        self._num_done -= num_frames
        self._move_to(self._num_done)

    def close(self) -> None:
        """Draw the bar a last time and leave it."""
        self._bar.set_postfix_str("", refresh=not self._bar.disable)
        self._bar.close()

    def _move_to(self, position: float) -> None:
        self._bar.update(min(position, self._bar.total) - self._bar.n)
