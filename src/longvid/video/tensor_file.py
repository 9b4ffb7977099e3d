"""Large tensors in safetensors files, written and read a part at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from longvid.video.atomic import move_into_place

_NAMES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_VALUES = 2**22


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: whole or not at all, also if the process dies midway, and without a copy of the tensors.

    Raises:
        ValueError: if a tensor has a dtype that such files cannot hold.
        OSError: if the disk is full; what was there before is still there.
    """
    entries, offset = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(f"cannot save {name}, a tensor of dtype {tensor.dtype}, to {path}")
        size = tensor.numel() * tensor.dtype.itemsize
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    header = json.dumps({"__metadata__": dict(metadata), **entries}).encode()
    header += b" " * (-len(header) % 8)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for tensor in tensors.values():
                _write(file, tensor)
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def frames_of(slice_: object, frames_per_part: int = 16) -> Iterator[tuple[slice, Tensor]]:
    """Read a tensor (B, C, F, ...) of an open safetensors file a few frames after another.

    Args:
        slice_: What `get_slice` of the file gives.
        frames_per_part: How many.
    """
    count = slice_.get_shape()[2]  # type: ignore[attr-defined]
    for start in range(0, count, frames_per_part):
        part = slice(start, min(start + frames_per_part, count))
        yield part, slice_[:, :, part]  # type: ignore[index]


def parts_of(tensor: Tensor) -> Iterator[bytes]:
    """The values of a tensor in their order, as bytes, a part at a time; a contiguous one on the CPU is not copied."""
    for values in tensor.detach().cpu().contiguous().reshape(-1).split(_VALUES):
        yield bytes_of(values)


def _write(file: IO[bytes], tensor: Tensor) -> None:
    for part in parts_of(tensor):
        file.write(part)


def bytes_of(tensor: Tensor) -> bytes:
    """The values of a tensor in their order, as they lie in memory."""
    packed = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # a single value may have any stride
    return packed.reshape(-1).view(torch.uint8).numpy().tobytes()
