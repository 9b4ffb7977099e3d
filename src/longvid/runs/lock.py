"""One process at a time writes a run folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType

LOCK = "lock"


class RunLock:
    """Held while entered. The operating system lets it go when its process ends, in whatever way that happens.

    Args:
        folder: The run folder.

    Raises:
        ValueError: on entering, if another process holds it.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self.path, flags, 0o644)
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") if hasattr(os, "pread") else ""
            os.close(descriptor)
            by = " ".join(holder.split()) or "another process"
            raise ValueError(f"{self.path.parent} is being written by {by}; only one process can at a time") from error
        self._descriptor = descriptor
        _note(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind the note, so that others can read it
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _note(descriptor: int, text: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode())
    except OSError:  # a full disk: the lock holds without its note
        pass
