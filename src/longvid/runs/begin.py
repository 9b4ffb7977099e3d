"""How a run begins: everything that it will ever need is checked, and kept in its folder, before the first frame."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from longvid.pipelines.distribution import check_alone
from longvid.pipelines.seeding import draw_keys, keys_of_seed
from longvid.runs.environment import environment
from longvid.runs.folder import RunFolder, digest_of
from longvid.runs.inputs import pack, save_inputs, settle, unpack
from longvid.runs.lock import RunLock
from longvid.runs.maker import now
from longvid.runs.manifest import Manifest
from longvid.runs.options import RunOptions
from longvid.runs.run import Run
from longvid.runs.schema import MAX_FRAMES, MAX_PIXELS
from longvid.runs.watcher import RunWatcher


def begin(
    path: str | os.PathLike[str],
    pipe: Any,
    request: Any,
    options: RunOptions | None = None,
    *,
    seed: int | None = None,
    model: dict[str, Any] | None = None,
) -> Run:
    """Begin a run: everything is checked and kept, no frame is made.

    Args:
        path: A folder that does not exist yet, or is empty.
        pipe: The pipeline.
        request: What it is asked for, of the type of its `stream`.
        options: How the video is kept.
        seed: Gives the noise, in place of the request's generator.
        model: How the model is found again: `name`, `dtype`, `device` and `scheduler`.

    Raises:
        ValueError: if the request cannot be made, or cannot be kept in a folder.
    """
    options = options or RunOptions()
    plain, tensors = check_request(pipe, request, options)
    folder = RunFolder(Path(path), options)
    folder.create()
    with RunLock(folder.path):
        folder.create()  # another process may have been faster
        if tensors:
            save_inputs(folder.inputs, tensors)
        manifest = Manifest(
            request=plain,
            inputs_bytes=folder.inputs.stat().st_size if tensors else None,
            inputs_sha256=digest_of(folder.inputs) if tensors else None,
            keys=draw_keys(request.generator) if seed is None else keys_of_seed(seed),
            seed=seed,
            model={"name": None, "dtype": None, "device": None, "scheduler": None, **(model or {})}
            | {"class": type(pipe).__name__},
            fingerprint=pipe.known_fingerprint(),
            environment=environment(pipe),
            options=options,
            created=now(),
        )
        manifest.save(folder.path)
    return Run(path)


def check_request(pipe: Any, request: Any, options: RunOptions) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check whether a request can be made and kept in a folder.

    Args:
        pipe: The pipeline.
        request: What it is asked for, of the type of its `stream`.
        options: How the video is kept.

    Returns:
        Its plain values, defaults filled in, and its pictures and tensors.

    Raises:
        ValueError: if it cannot.
    """
    if request.num_frames == math.inf:
        raise ValueError("num_frames must be a whole number: a run has a last frame")
    check_alone(pipe)
    plain, tensors = pack(request)
    checked = pipe.check_inputs(unpack(type(request), plain, tensors))
    plain = settle(plain, checked)
    if checked.batch_size != 1:
        raise ValueError(f"a run folder holds one video; got a request for {checked.batch_size}")
    if not checked.num_frames <= MAX_FRAMES:
        raise ValueError(f"a run holds up to {MAX_FRAMES} frames; got num_frames={checked.num_frames}")
    if max(checked.size) > 2**14 or math.prod(checked.size) > MAX_PIXELS:
        raise ValueError(f"a run holds frames of up to {MAX_PIXELS} pixels; got height x width = {checked.size}")
    options.check_size(*checked.size)
    return plain, tensors


def generate_to(
    pipe: Any, run_dir: str | os.PathLike[str], *args: Any, watcher: RunWatcher | None = None, **options: Any
) -> Run:
    """Make a video in a run folder: `begin`, then `Run.resume`.

    Args:
        pipe: The pipeline.
        run_dir: A folder that does not exist yet, or is empty.
        args: Arguments of the pipeline's call.
        watcher: Is told of every step, window and chunk.
        options: Further arguments of the call, and those of `RunOptions`.

    Raises:
        ValueError: as `begin`.
    """
    kept = {name: options.pop(name) for name in sorted(RunOptions.field_names() & options.keys())}
    request = type(pipe).stream.request_type(*args, **options)
    name = getattr(getattr(pipe, "config", None), "_name_or_path", None)
    model = {"name": name or None, "dtype": str(pipe.unet.dtype).removeprefix("torch.")}
    return begin(run_dir, pipe, request, RunOptions(**kept), model=model).resume(pipe, watcher=watcher)
