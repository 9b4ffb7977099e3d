"""Reading weights from files of others: the one place that opens a pickle, and only for tensors."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a safetensors file, or a file of `torch.save` that holds nothing but weights.

    Tensors are mapped from the file and read when they are used. Of a Lightning checkpoint, `state_dict` is taken and the
    optimizer's state is never read.

    Raises:
        ValueError: if there is no such file, it is damaged, it would run code when opened, or it holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint file at {path}")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no named weights; expected a state dict")
    odd = sorted(str(name) for name, value in content.items() if not isinstance(value, Tensor))
    if odd:
        raise ValueError(f"{path} holds more than weights: {', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}")
    return dict(content)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated: {error}") from error


def _pickle(path: Path) -> object:
    try:
        zipped = zipfile.is_zipfile(path)  # files from before torch 1.6 are not, and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than weights, which would run code when opened, and is refused: {_first_line(error)}"
        ) from error
    except (RuntimeError, OSError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is damaged, truncated or no file of torch.save: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
