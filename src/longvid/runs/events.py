"""What happens in a run, for programs: a file to which a line of JSON is added for every event."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longvid.runs.pace import Pace
from longvid.runs.watcher import RunPlan, RunWatcher

STEP_SECONDS = 1.0


class EventWatcher(RunWatcher):
    """Adds a JSON object on a line of its own for every event; the line is in the file when the event is over.

    Every object has `event`, the kind, and `time`, in UTC. `step`, `window` and `chunk` also have the
    fields of `Pace.values`. A step is told of when a second has passed since the last event.

    Args:
        path: The file; what it holds is kept.
        clock: Gives seconds.

    Raises:
        ValueError: if it is a folder.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic):
        self.path = Path(path)
        if self.path.is_dir():
            raise ValueError(f"events go to a file; got the folder {self.path}")
        self.pace, self._clock = Pace(clock), clock
        self._last = clock()

    def on_plan(self, plan: RunPlan) -> None:
        """Tell what is about to be made."""
        self.pace.on_plan(plan)
        self._add("plan", run=str(plan.path), fps=plan.fps, num_frames=plan.num_frames, start=plan.start,
                  frames=plan.frames, chunks=plan.chunks, first_chunk=plan.first_chunk, windows=plan.windows)  # fmt: skip

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Tell of it if the last event is a second ago."""
        self.pace.on_step(pipe, step, timestep, tensors)
        if self._clock() - self._last >= STEP_SECONDS:
            self._add("step", step=step + 1, num_steps=pipe.num_timesteps, **self.pace.values())
        return {}

    def on_window(self, window: Any) -> None:
        """Tell which frames were made."""
        self.pace.on_window(window)
        self._add("window", start=window.start, stop=window.start + window.num_frames, **self.pace.values())

    def on_diagnosis(self, index: int, take: int, diagnosis: Any) -> None:
        """Tell what was measured, and the problems."""
        problems = [{"problem": found.problem, "value": found.value, "limit": found.limit, "text": str(found)}
                    for found in diagnosis.findings]  # fmt: skip
        self._add("diagnosis", chunk=index, take=take, scores=diagnosis.scores, problems=problems)

    def on_reroll(self, index: int, take: int, change: Any) -> None:
        """Tell which seed a chunk with a problem is made again with."""
        self.pace.on_reroll(index, take, change)
        self._add("reroll", chunk=index, take=take, seed=change.seed)

    def on_chunk(self, index: int, record: Any) -> None:
        """Tell which chunk is on the disk."""
        self.pace.on_chunk(index, record)
        self._add("chunk", chunk=index, start=record.start, stop=record.stop, take=record.take, seed=record.seed,
                  **self.pace.values())  # fmt: skip

    def on_end(self, error: BaseException | None) -> None:
        """Tell what stopped the run, or that nothing did."""
        self._add("end", error=None if error is None else f"{type(error).__name__}: {error}")

    def _add(self, event: str, **fields: Any) -> None:
        self._last = self._clock()
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": moment, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
        with open(self.path, "ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":  # a line that a dead process left unfinished
                line = "\n" + line
            file.write(line.encode())


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
