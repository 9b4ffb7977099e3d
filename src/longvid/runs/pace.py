"""How fast a run is made, when it will be done, and how much memory it takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from longvid.runs.watcher import RunPlan, RunWatcher


class Pace(RunWatcher):
    """Counts what was made since work began.

    Args:
        clock: Gives seconds.

    Attributes:
        plan: What is made; None before work began.
        frames: Frames made.
        windows: Windows made.
        chunks: Chunks made.
        steps: Steps of the scheduler made.
        window_part: The share of the window under way that is done, in [0, 1].
        device: The device of the pipeline, from its first step on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._reset(None)
        self.device: Any = None

    def _reset(self, plan: RunPlan | None) -> None:
        self.plan, self._began = plan, self._clock()
        self.frames = self.windows = self.chunks = self.steps = 0
        self.window_part = 0.0
        self._kept, self._found = (0, 0), None

    def on_plan(self, plan: RunPlan) -> None:
        """Count from here."""
        self._reset(plan)

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Count a step; those that another process made before the first do not count."""
        self.steps += 1
        if self._found is None:
            self._found = step / pipe.num_timesteps
        self.window_part, self.device = (step + 1) / pipe.num_timesteps, pipe.device
        return {}

    def on_window(self, window: Any) -> None:
        """Count its frames, and the window if it ends with them."""
        self.frames += window.num_frames
        if window.ends_window:
            self.windows, self.window_part = self.windows + 1, 0.0

    def on_chunk(self, index: int, record: Any) -> None:
        """Count a chunk."""
        self.chunks, self._kept = self.chunks + 1, (self.frames, self.windows)

    def on_reroll(self, index: int, take: int, change: Any) -> None:
        """Take back the frames of a chunk that is made again; the time that they took stays."""
        (self.frames, self.windows), self.window_part = self._kept, 0.0

    @property
    def seconds(self) -> float:
        """Seconds since work began."""
        return self._clock() - self._began

    @property
    def rate(self) -> float | None:
        """Frames per second since work began; None before the first frame."""
        return self.frames / self.seconds if self.frames and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is made, if windows go on to take what they took so far; None before the first step."""
        windows = self.plan.windows if self.plan else 0
        done = self.windows + self.window_part
        made = done - (self._found or 0.0)
        return self.seconds * max(0.0, windows - done) / made if made > 0 and windows else None

    def values(self) -> dict[str, Any]:
        """All of it, in the types that JSON knows."""
        left, rate = self.seconds_left, self.rate
        return {
            "frames": self.frames,
            "windows": self.windows,
            "chunks": self.chunks,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "frames_per_second": None if rate is None else round(rate, 4),
            "seconds_left": None if left is None else round(left, 1),
            **memory(self.device),
        }


def memory(device: Any = None) -> dict[str, int | None]:
    """Bytes in use: of the process, and on its CUDA device; with their peaks. None where it cannot be known."""
    used: dict[str, int | None] = {"host_bytes": _resident(), "host_peak_bytes": _peak()}
    cuda = device is not None and torch.device(device).type == "cuda"
    used["device_bytes"] = torch.cuda.memory_allocated(device) if cuda else None
    used["device_peak_bytes"] = torch.cuda.max_memory_allocated(device) if cuda else None
    return used


def _resident() -> int | None:
    try:
        import resource

        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ImportError, IndexError, ValueError):  # not Linux
        return None


def _peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
