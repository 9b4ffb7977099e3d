"""What metrics need from outside: a package or a file of weights, and a message that says which, where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longvid.metrics.base import MissingWeights

INSTALL = 'pip install "longvid[metrics]"'


def need_package(name: str, what: str) -> Any:
    """Import the package `name`.

    Args:
        name: As it is imported.
        what: What needs it, for the message.

    Raises:
        MissingWeights: if it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] != name.partition(".")[0]:
            raise MissingWeights(f"{what}: the package {name} cannot be imported here: {error}") from error
        raise MissingWeights(f"{what} needs the package {name}: {INSTALL}") from error


def need_file(path: str | os.PathLike[str] | None, *, what: str, option: str, file: str) -> Path:
    """The weights file at `path`.

    Args:
        path: Where the user says it is; None if nothing was said.
        what: What needs it, for the message.
        option: The option that names the file.
        file: What the file is and where it comes from.

    Raises:
        MissingWeights: if no path was given or nothing is there.
    """
    if path is None:
        raise MissingWeights(f"{what} needs {file}: pass {option}=PATH")
    found = Path(path).expanduser()
    if not found.exists():
        raise MissingWeights(f"{what}: there is nothing at {option}={str(path)!r}; it must be {file}")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a file of `torch.save` that holds nothing else, as float32.

    Raises:
        ValueError: if the file is damaged or holds more than tensors.
    """
    from longvid.conversion.files import read_weights as read

    return {name: value.float() for name, value in read(path).items() if value.is_floating_point()}


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' loading bars off the terminal for a while."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_exactly(module: torch.nn.Module, weights: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Load `weights` into `module`, all of them and nothing less.

    Raises:
        ValueError: if a weight is missing, has another shape or has no place, with the first such name.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted({*wanted, *given}):
        if wanted.get(name) != given.get(name):
            expected, got = wanted.get(name, "nothing"), given.get(name, "nothing")
            raise ValueError(f"{path} is not {what}: expected {expected} at {name!r}; got {got}")
    module.load_state_dict(dict(weights))


def usable_device(device: str | None) -> torch.device:
    """The device by that name, or CUDA where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
