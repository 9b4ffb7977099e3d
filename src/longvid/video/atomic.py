"""Files that are whole at any moment: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, reach the disk, then rename: a reader sees the old file or the new one, never a half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def move_into_place(partial: Path, path: Path) -> None:
    """Bring a finished file to the disk and give it its name; what was there is replaced in one step."""
    file = os.open(partial, os.O_RDWR)  # Windows syncs only what is open for writing
    try:
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring renames and removals in a folder to the disk; only POSIX can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
