"""A model for a command: loaded in silence, on a device that is there."""

from __future__ import annotations

import os
from typing import Any


def load_pipeline(
    model: str, *, device: str | None = None, dtype: str = "float32", kind: str = "LongVideoPipeline"
) -> Any:
    """Load a pipeline and move it to its device, CUDA where there is one unless told.

    Args:
        model: Bundled name, folder or hub id.
        device: Name of the device.
        dtype: Name of the dtype.
        kind: The public class of longvid that loads it.

    Raises:
        ValueError: if the device cannot be used here, or there is no such model.
    """
    import longvid

    device = usable_device(device)
    pipe = getattr(longvid, kind).from_pretrained(model, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def usable_device(device: str | None) -> str:
    """The device by that name, or CUDA where there is one.

    Raises:
        ValueError: if it cannot be used here.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def num_launched() -> int:
    """How many processes `accelerate launch` or torchrun started to work together; 1 if they started none."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def quiet_libraries() -> None:
    """Keep notes and loading bars of diffusers and transformers off the terminal."""
    import warnings

    warnings.simplefilter("ignore")
    for message in ("not enough memory to decode", r"\d+ of \d+ processes have nothing"):
        warnings.filterwarnings("default", message=message)
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
