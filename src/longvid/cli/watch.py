"""Who looks on while a command works on a run folder: a bar or plain lines, warnings, events, a preview."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import nearest, say
from longvid.cli.progress import FrameBar
from longvid.metrics.diagnosis import Limits
from longvid.runs import EventWatcher, Pace, PreviewWatcher, RunPlan, RunWatcher, Watchers


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
        self._pace.on_window(window)
        self._note()
        self._bar.on_chunk(window.num_frames)

    def on_reroll(self, index: int, take: int, change: Any) -> None:
        """Go back to where the chunk began."""
        made = self._pace.frames
        self._pace.on_reroll(index, take, change)
        self._bar.take_back(made - self._pace.frames)

    def on_chunk(self, index: int, record: Any) -> None:
        """Count it."""
        self._pace.on_chunk(index, record)
        self._note()

    def _note(self) -> None:
        plan, pace = self._pace.plan, self._pace
        if plan is not None:
            done, total = plan.first_chunk + pace.chunks, plan.first_chunk + plan.chunks
            self._bar.note = f"{done}/{total} chunks, {memory_text(pace.values())}"


class PlainWatcher(RunWatcher):
    """Prints one line for every chunk, for logs."""

    def __init__(self) -> None:
        self._pace = Pace()
        self.on_step, self.on_window, self.on_reroll = self._pace.on_step, self._pace.on_window, self._pace.on_reroll

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
            f"{index + 1} of {plan.first_chunk + plan.chunks} chunks, {record.stop} of {plan.num_frames} frames,"
            f" {pace.steps} steps, {pace.rate or 0:.3g} frames/s, {left} left, {memory_text(values)}"
        )


class ProblemWatcher(RunWatcher):
    """Prints a warning for every problem of a chunk, also for the quiet; the others learn when it is made again."""

    def __init__(self, *, quiet: bool):
        self._quiet = quiet

    def on_diagnosis(self, index: int, take: int, diagnosis: Any) -> None:
        """Say what is wrong."""
        for found in diagnosis.findings:
            tqdm.write(f"longvid: warning: chunk {index}, take {take}: {found}", file=sys.stderr)

    def on_reroll(self, index: int, take: int, change: Any) -> None:
        """Say what is done."""
        if not self._quiet:
            tqdm.write(f"chunk {index} is made again, with seed {change.seed}", file=sys.stderr)


def memory_text(values: dict[str, Any]) -> str:
    """Memory in use, as text: `1.2 GB host, 7.9 GB device`."""
    host = values["host_bytes"] or values["host_peak_bytes"]
    used = {"host": host, "device": values["device_bytes"]}
    return ", ".join(f"{size / 1e9:.1f} GB {where}" for where, size in used.items() if size is not None) or "memory ?"


def limits_of(words: Sequence[str]) -> Limits:
    """The limits of `--limit NAME=VALUE ...`.

    Raises:
        ValueError: if there is no such limit, or it is no number.
    """
    given: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise ValueError(f"--limit takes NAME=NUMBER, such as seam=4; got {word!r}") from None
    known = [field.name for field in fields(Limits)]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"--limit is one of {', '.join(known)}; got {unknown[0]!r}{nearest(unknown[0], known)}")
    return Limits(**given)


def watcher_of(bar: FrameBar, interrupts: Interrupts, arguments: argparse.Namespace) -> Watchers:
    """All that a command's options ask for."""
    shown: list[RunWatcher] = [ShieldWatcher(interrupts), ProblemWatcher(quiet=arguments.quiet)]
    if arguments.plain and not arguments.quiet:
        shown.append(PlainWatcher())
    elif not arguments.quiet:
        shown.append(BarWatcher(bar))
    if arguments.preview:
        shown.append(PreviewWatcher())
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
