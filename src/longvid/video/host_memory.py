"""Tensors of a whole video on the host: in memory, or past a limit in temporary files that are mapped into memory."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import torch
from torch import Tensor

from longvid.video.tensor_file import bytes_of

DEFAULT_LIMIT = 4 * 2**30
_BLOCK = bytes(2**20)


class HostMemory:
    """Gives tensors in ordinary memory of the host."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A contiguous tensor on the CPU with arbitrary values."""
        return torch.empty(tuple(shape), dtype=dtype)


class MappedMemory(HostMemory):
    """Gives tensors that lie in temporary files: the system moves their pages between disk and memory as needed.

    The files have no name. The disk has its room back when nothing refers to the tensor any more, and when the process
    ends, in whatever way. The room is taken at once: a disk that is full is an error here and no crash later.

    Args:
        folder: Where the files lie; by default the folder for temporary files, which the environment variable `TMPDIR`
            names.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        self.folder = os.fspath(folder) if folder is not None else tempfile.gettempdir()

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A contiguous tensor on the CPU with arbitrary values.

        Raises:
            OSError: if the disk has not the room, naming the folder.
        """
        count = math.prod(shape)
        if not count:
            return super().empty(shape, dtype)
        size = count * dtype.itemsize
        with naming_full_disk(self.folder, size), tempfile.TemporaryFile(dir=self.folder) as file:
            _reserve(file, size)
            mapped = mmap.mmap(file.fileno(), size)
        return torch.frombuffer(mapped, dtype=dtype, count=count).reshape(tuple(shape))


def host_memory(num_bytes: int, limit: int, folder: str | os.PathLike[str] | None = None) -> HostMemory:
    """Ordinary memory for what takes up to `limit` bytes in all, mapped files for more; the values are the same."""
    return HostMemory() if num_bytes <= limit else MappedMemory(folder)


def check_limit(limit: object) -> None:
    """Check a limit of host memory.

    Raises:
        ValueError: unless it is a whole number of at least 0.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError(f"host_memory_limit must be a whole number of bytes, at least 0; got {limit!r}")


def fill_normal(tensor: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Fill a contiguous tensor with the numbers that `torch.randn` of its shape draws, in its own memory.

    Args:
        tensor: (B, ...), float32, on the device of the generators.
        generator: One for the batch, or one per row, whose numbers then do not depend on its neighbours.
    """
    if not isinstance(generator, (list, tuple)):
        return tensor.normal_(generator=generator)  # type: ignore[arg-type]
    rows = [tensor] if len(generator) == 1 else tensor.split(1)
    for row, each in zip(rows, generator, strict=True):
        row.normal_(generator=each)
    return tensor


class TensorSpool:
    """Tensors that are written one after another and read back once, in memory up to a limit, on the disk beyond it.

    Args:
        limit: Bytes.
        folder: As for `MappedMemory`.
    """

    def __init__(self, limit: int, folder: str | os.PathLike[str] | None = None):
        self.folder = os.fspath(folder) if folder is not None else tempfile.gettempdir()
        self._file = tempfile.SpooledTemporaryFile(max_size=max(1, limit), dir=self.folder)  # noqa: SIM115 (`close`)
        self._kinds: list[tuple[tuple[int, ...], torch.dtype]] = []

    def write(self, tensor: Tensor) -> None:
        """Append a tensor.

        Raises:
            OSError: if the disk has not the room.
        """
        with naming_full_disk(self.folder, tensor.numel() * tensor.dtype.itemsize):
            self._file.write(bytes_of(tensor))
        self._kinds.append((tuple(tensor.shape), tensor.dtype))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors so far."""
        return [shape for shape, _ in self._kinds]

    def read(self) -> Iterator[Tensor]:
        """The tensors in the order in which they were written."""
        with naming_full_disk(self.folder, 0):
            self._file.seek(0)
        for shape, dtype in self._kinds:
            data = bytearray(self._file.read(math.prod(shape) * dtype.itemsize))
            yield torch.frombuffer(data, dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Give memory and disk back."""
        self._file.close()


@contextmanager
def naming_full_disk(folder: str, size: int) -> Iterator[None]:
    """Let an error that says the disk is full say for what, and what helps."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"{size:,} bytes of the whole video's latents" if size else "the whole video's latents"
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)} for {what} (TMPDIR names another folder, host_memory_limit keeps more in memory)",
            folder,
        ) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Take the room on the disk: a mapped page that finds none would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, len(_BLOCK)):
        file.write(_BLOCK[: size - start])
    file.flush()
