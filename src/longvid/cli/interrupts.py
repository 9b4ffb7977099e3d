"""Ctrl-C and SIGTERM that never cut a file in two: they wait until a shielded block is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user or the system asked the process to stop; `exit_code` is 128 + the signal's number, 130 for Ctrl-C."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """While entered, SIGINT and SIGTERM raise `Interrupted`, outside `shielded` blocks at once, inside at their end."""

    def __init__(self) -> None:
        self._shields = 0
        self._pending: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._previous = {signum: signal.signal(signum, self._handle) for signum in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    @contextmanager
    def shielded(self, *, finish: bool = False) -> Iterator[None]:
        """Let a block run to its end; a signal that comes meanwhile is raised there, or dropped in the `finish`."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._pending is not None and not self._shields and not finish:
            pending, self._pending = self._pending, None
            raise Interrupted(pending)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._shields:
            self._pending = signum
        else:
            raise Interrupted(signum)
