"""Processes that make one video together: each evaluates a share of the branches or windows, all get all results."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist

Task: TypeAlias = Callable[[], torch.Tensor]
Value = TypeVar("Value")

_NOTE_BYTES, _TEXT_LETTERS = 2048, 240
_FAREWELL = 30.0  # seconds that a failed process waits for the others to hear of it
_PATIENCE = 200  # evaluations after which processes without work are spoken of


class ProcessFailed(RuntimeError):
    """Another process of the group failed, ended, or does something else; which one and why is in the message."""


class Processes:
    """A group of one process, which does everything itself: nothing is exchanged, and nothing is copied.

    Attributes:
        index: The number of this process, counted from 0, the main one.
        count: How many processes there are.
    """

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and talks to people."""
        return self.index == 0

    def share(self, num_tasks: int) -> range:
        """The tasks that this process evaluates: every `count`-th one, from its own number on."""
        return range(self.index, num_tasks, self.count)

    def spread(self, tasks: Sequence[Task]) -> Iterator[torch.Tensor]:
        """Evaluate tasks, and give their results in order, each as soon as it is there."""
        for task in tasks:
            yield task()

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Give all processes what `make` returns in the main one; it is called there alone."""
        return make()

    def session(self) -> AbstractContextManager[None]:
        """Inside, whatever fails in one process fails in all."""
        return nullcontext()

    def in_session(self, chunks: Iterator[Value]) -> Iterator[Value]:
        """The same iterator, with all of its work in a session."""
        return chunks


ALONE = Processes()


def windows_or_branches(processes: Processes, num_windows: int) -> tuple[Processes, Processes]:
    """Give who shares the windows, and who the branches inside of a window: several windows are shared, else branches."""
    return (processes, ALONE) if num_windows > 1 else (ALONE, processes)


class LaunchedProcesses(Processes):
    r"""The processes that `accelerate launch` or torchrun started; all must do the same calls in the same order.

    n tasks are done in :math:`\lceil n / P \rceil` rounds, in each of which every one of P processes evaluates a task
    and sends its result to the others, byte for byte: all hold the same bits, and those of one process that evaluates
    one task after the other on the same kind of device. A result of b bytes is received by the P - 1 processes that
    did not make it and by nobody else, and the results of one round are in memory together.

    Results travel by what torch.distributed was initialised with, NCCL on GPUs. Before, all tell each other by a second
    way, between the hosts' memories (gloo, 2 KiB per process and round), how they fared, so that a process that fails
    makes all fail, and processes that do different things find out. A process that dies is noticed by the others as
    soon as its connections are closed.

    Args:
        device: Where the tasks of this process work and results arrive.
        timeout: How long a process waits for the others.

    Raises:
        ValueError: if torch.distributed is not initialised.
    """

    def __init__(self, device: torch.device | str, *, timeout: timedelta = timedelta(hours=2)):
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("expected processes that accelerate launch or torchrun started; got one process")
        self.index, self.count = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)
        self._way_of_notes: Any = dist.new_group(backend="gloo", timeout=timeout)
        self._apart = False  # whether the processes may be at different places
        self._known = False  # whether all know that one failed
        self._num_spread = self._most_tasks = 0
        self._warned = False

    def spread(self, tasks: Sequence[Task]) -> Iterator[torch.Tensor]:
        """Evaluate this process's share of the tasks, and give the results of all in order.

        Args:
            tasks: As many in every process; each returns a tensor, of any shape and dtype.

        Raises:
            ProcessFailed: if another process failed or has other tasks.
            ValueError: if a result is part of a graph of gradients, which cannot reach over processes.
        """
        self._num_spread, self._most_tasks = self._num_spread + 1, max(self._most_tasks, len(tasks))
        if self._num_spread == _PATIENCE:
            self._warn_of_idle()
        for first in range(0, len(tasks), self.count):
            yield from self._round(tasks, first)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Give all processes what `make` returns in the main one, by pickle; it is called there alone.

        Raises:
            ProcessFailed: in the others, if it fails there.
        """
        box: list[Any] = []
        failure = None
        if self.is_main:
            try:
                box = [make()]
            except BaseException as error:
                failure = error
        self._meet("what the main process decides", failure)
        self._apart = True
        box = box or [None]
        dist.broadcast_object_list(box, src=0, group=self._way_of_notes)
        self._apart = False
        return box[0]

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside, whatever fails in one process fails in all, where they meet next; at the end they wait for each other.

        Raises:
            ProcessFailed: if another process failed, stopped or ended.
        """
        self._meet("beginning")
        self._num_spread, self._most_tasks, self._warned = 0, 0, False
        try:
            yield
            self._meet("end")
        except BaseException as error:
            self._tell(error)
            raise
        if self._num_spread:
            self._warn_of_idle()

    def in_session(self, chunks: Iterator[Value]) -> Iterator[Value]:
        """The same iterator, with all of its work in a session."""
        with self.session():
            yield from chunks

    def _round(self, tasks: Sequence[Task], first: int) -> list[torch.Tensor]:
        owners = min(self.count, len(tasks) - first)
        result, facts, failure = None, {}, None
        if self.index < owners:
            try:
                result = tasks[first + self.index]()
                if result.requires_grad:
                    raise ValueError("gradients do not reach over processes: expected torch.no_grad()")
                result = result.to(self.device).contiguous()
                facts = {"shape": list(result.shape), "dtype": str(result.dtype).removeprefix("torch.")}
            except BaseException as error:
                failure = error
        notes = self._meet(f"tasks {first} to {first + owners - 1} of {len(tasks)}", failure, **facts)
        self._apart = True
        results, sent = [], []
        for owner, note in enumerate(notes[:owners]):
            here = result
            if owner != self.index or here is None:
                here = torch.empty(note["shape"], dtype=getattr(torch, note["dtype"]), device=self.device)
            if here.numel():
                sent.append(dist.broadcast(here.reshape(-1).view(torch.uint8), src=owner, async_op=True))
            results.append(here)
        for work in sent:
            work.wait()
        self._apart = False
        return results

    def _meet(self, place: str, failure: BaseException | None = None, **facts: Any) -> list[dict[str, Any]]:
        """Tell all others how this process fares, and hear how they do; raises if one failed or is elsewhere."""
        if self._apart:
            raise failure or ProcessFailed("the processes lost each other at an earlier failure: start them again")
        self._apart = True
        try:
            heard, work = self._send(place, failure, facts)
            work.wait()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise failure or ProcessFailed(f"another process has ended, or cannot be reached: {reason}") from error
        notes = [_read(each) for each in heard]
        self._apart, self._known = False, True
        if failure is not None:
            raise failure
        failed = [(index, note["failure"]) for index, note in enumerate(notes) if note["failure"] is not None]
        if failed:
            raise ProcessFailed("; ".join(f"process {index} failed: {text}" for index, text in failed))
        places = [note["place"] for note in notes]
        if len(set(places)) > 1:
            raise ProcessFailed(
                "expected the same work in every process; got "
                + ", ".join(f"{text} in process {index}" for index, text in enumerate(places))
            )
        self._known = False
        return notes

    def _tell(self, error: BaseException) -> None:
        """Let the others fail where they meet this process next, unless they know."""
        if self._apart or self._known:
            return
        self._apart = True
        try:
            _, work = self._send("failure", error, {})
        except RuntimeError:  # a connection is closed: that process, too, has ended
            return
        limit = time.monotonic() + _FAREWELL
        while not work.is_completed() and time.monotonic() < limit:
            time.sleep(0.002)
        self._apart, self._known = not work.is_completed(), True

    def _send(
        self, place: str, failure: BaseException | None, facts: dict[str, Any]
    ) -> tuple[list[torch.Tensor], dist.Work]:
        text = None if failure is None else _described(failure)
        note_text = json.dumps({"place": place, "failure": text, **facts}, ensure_ascii=False)
        written = note_text.encode(errors="replace")
        note = torch.zeros(_NOTE_BYTES, dtype=torch.uint8)
        note[: len(written)] = torch.frombuffer(bytearray(written), dtype=torch.uint8)
        heard = [torch.empty_like(note) for _ in range(self.count)]
        work = dist.all_gather(heard, note, group=self._way_of_notes, async_op=True)
        assert work is not None  # this process is in the group
        return heard, work

    def _warn_of_idle(self) -> None:
        idle = self.count - self._most_tasks
        if idle > 0 and self.is_main and not self._warned:
            self._warned = True
            warnings.warn(
                f"{idle} of {self.count} processes have nothing to evaluate: there are at most {self._most_tasks} "
                "branches of the guidance, or windows, at a time",
                stacklevel=2,
            )


def _described(error: BaseException) -> str:
    if isinstance(error, GeneratorExit):
        return "it stopped before the end"
    return f"{type(error).__name__}: {error}"[:_TEXT_LETTERS]


def _read(note: torch.Tensor) -> dict[str, Any]:
    return json.loads(bytes(note.tolist()).rstrip(b"\0"))
