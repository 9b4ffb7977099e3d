"""Who looks on while a command works on a run folder: a bar or plain lines, and a file of events."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import say
from longvid.cli.progress import FrameBar
from longvid.runs import EventWatcher, Pace, RunPlan, RunWatcher, Watchers


class ShieldWatcher(RunWatcher):
    """Holds Ctrl-C back while the folder changes."""

    def __init__(self, interrupts: Interrupts):
        self._interrupts = interrupts

    def shielded(self) -> AbstractContextManager[Any]:
        """Ctrl-C waits until the block is done."""
        return self._interrupts.shielded()


class BarWatcher(RunWatcher):
    """Moves a progress bar, which also says which chunk is made and how much memory is in use."""

    def __init__(self, bar: FrameBar):
        self._bar, self._pace = bar, Pace()

    def on_plan(self, plan: RunPlan) -> None:
        """Count chunks from here."""
        self._pace.on_plan(plan)
        self._note()

    def on_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Move within a window."""
        self._pace.on_step(pipe, step, timestep, tensors)
        return self._bar.on_step(pipe, step, timestep, tensors)

    def on_window(self, window: Any) -> None:
        """Count its frames."""
        self._note()
        self._bar.on_chunk(window.num_frames)

    def on_chunk(self, index: int, record: Any) -> None:
        """Count it."""
        self._pace.on_chunk(index, record)
        self._note()

    def _note(self) -> None:
        plan, pace = self._pace.plan, self._pace
        if plan is not None:
            chunk = min(plan.first_chunk + pace.chunks + 1, plan.first_chunk + plan.chunks)
            self._bar.note = f"chunk {chunk}/{plan.first_chunk + plan.chunks}, {memory_text(pace.values())}"


class PlainWatcher(RunWatcher):
    """Prints one line for every chunk, for logs."""

    def __init__(self) -> None:
        self._pace = Pace()
        self.on_step, self.on_window = self._pace.on_step, self._pace.on_window

    def on_plan(self, plan: RunPlan) -> None:
        """Say what is made."""
        self._pace.on_plan(plan)
        say(f"{plan.path}: frames {plan.start} to {plan.start + plan.frames - 1} in {plan.chunks} chunks")

    def on_chunk(self, index: int, record: Any) -> None:
        """Say how far it is."""
        self._pace.on_chunk(index, record)
        plan, pace = self._pace.plan, self._pace
        assert plan is not None  # told before any chunk
        values = pace.values()
        left = str(timedelta(seconds=round(pace.seconds_left or 0)))
        say(
            f"chunk {index + 1}/{plan.first_chunk + plan.chunks}: {record.stop} of {plan.num_frames} frames,"
            f" {pace.steps} steps, {pace.rate or 0:.3g} frames/s, {left} left, {memory_text(values)}"
        )


def memory_text(values: dict[str, Any]) -> str:
    """Memory in use, as text: `1.2 GB host, 7.9 GB device`."""
    host = values["host_bytes"] or values["host_peak_bytes"]
    used = {"host": host, "device": values["device_bytes"]}
    return ", ".join(f"{size / 1e9:.1f} GB {where}" for where, size in used.items() if size is not None) or "memory ?"


def watcher_of(bar: FrameBar, interrupts: Interrupts, arguments: argparse.Namespace) -> Watchers:
    """All that a command's options ask for."""
    shown: list[RunWatcher] = [ShieldWatcher(interrupts)]
    if arguments.plain and not arguments.quiet:
        shown.append(PlainWatcher())
    elif not arguments.quiet:
        shown.append(BarWatcher(bar))
    if arguments.events is not None:
        shown.append(EventWatcher(arguments.events))
    return Watchers(*shown)


def check_watch_arguments(arguments: argparse.Namespace, run_dir: str | os.PathLike[str]) -> None:
    """Refuse what cannot be written, before any work.

    Raises:
        ValueError: naming the option.
    """
    if arguments.events is None:
        return
    path = Path(arguments.events)
    if path.is_dir() or not (path.parent.is_dir() or path.parent == Path(run_dir)):
        raise ValueError(f"--events must be a file in a folder that exists; got {arguments.events}")
