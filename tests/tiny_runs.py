"""Runs that take a blink, and processes that die at a chosen moment."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler

import tiny
from longvid import Run, read_video
from longvid.runs import RunOptions, begin

PROMPT = "a red circle moving right"
SIZE = {"height": 16, "width": 16}


def art_v() -> Any:
    """One window per frame, without masks."""
    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    unet = tiny.anchored_unet(**tiny.ONE_LEVEL)
    defaults = {"num_inference_steps": 1, "guidance_scale": 1.0, "reference_guidance_scale": 0.0,
                "anchor_guidance_scale": 0.0, **SIZE}  # fmt: skip
    return tiny.art_v(scheduler=scheduler, unet=unet, mask_network=None, vae=tiny.vae(factor=2), call_defaults=defaults)


def streaming_t2v() -> Any:
    """Chunks of four frames that share two."""
    defaults = {"num_inference_steps": 1, "guidance_scale": 1.0, "height": 32, "width": 32}
    return tiny.streaming_t2v(chunk_size=4, overlap=2, call_defaults=defaults)


def harivo(**changes: Any) -> Any:
    """Windows of four frames that share two; `changes` are call defaults, such as the strategy."""
    defaults = {"num_inference_steps": 1, "guidance_scale": 1.0, "mg_scale": 5.0, "height": 16, "width": 16, **changes}
    return tiny.harivo(window_size=4, overlap=2, vae=tiny.vae(factor=4, latent_channels=4), call_defaults=defaults)


def begin_run(path: Path, pipe: Any, *, num_frames: int = 7, seed: int = 3, **options: Any) -> Run:
    """A run of which no frame is made, in chunks of two windows."""
    kept = {name: options.pop(name) for name in RunOptions.field_names() & options.keys()}
    request = type(pipe).stream.request_type(PROMPT, num_frames=num_frames, **options)
    chunk_frames = 2 if type(pipe).__name__ == "ARTVPipeline" else 4
    return begin(path, pipe, request, RunOptions(**{"chunk_frames": chunk_frames, **kept}), seed=seed)


def frames_of(run: Run) -> torch.Tensor:
    """The frames of a run's video, (F, 3, H, W), as they are stored."""
    return read_video(run.video, as_uint8=True).read()[0].transpose(0, 1)


def kept_frames(run: Run) -> torch.Tensor:
    """The frames of a run as they were made, (F, 3, H, W)."""
    return run.read(as_uint8=True).read()[0].transpose(0, 1)


def in_child(act: Callable[[], Any], *, before: Callable[[], Any] = bool, delay: float | None = None) -> int:
    """Do something in a process of its own; minus the signal that ended it, else its exit code.

    Args:
        act: What to do.
        before: Is called in the child first.
        delay: Seconds until it is killed.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # threads do not survive a fork
            before()
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Reaper:
    """Kills its own process at the n-th point where a file reaches the disk, is renamed or is half written.

    Args:
        point: n.
        of: Only points of files whose path contains this count.
    """

    def __init__(self, point: int, of: str = ""):
        self.left, self.of = point, of

    def install(self) -> None:
        """Put a point before and after every sync and rename, and into the middle of every write."""
        from longvid.video import atomic, join, tensor_file

        for name in ("fsync", "replace", "link", "unlink"):
            setattr(os, name, self._around(getattr(os, name)))
        for module in (atomic, join, tensor_file):
            module.open = self._open  # type: ignore[attr-defined]

    def pass_by(self, prepare: Callable[[], Any] = bool) -> None:
        """A point."""
        self.left -= 1
        if self.left == 0:
            prepare()
            os.kill(os.getpid(), signal.SIGKILL)

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counts = self.of in str(args[0])
            if counts:
                self.pass_by()
            result = function(*args, **kwargs)
            if counts:
                self.pass_by()
            return result

        return wrapped

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        if self.of not in str(args[0]):
            return builtins.open(*args, **kwargs)
        return _HalfFile(builtins.open(*args, **kwargs), self)


class _HalfFile:
    def __init__(self, file: Any, reaper: Reaper):
        self._file, self._reaper = file, reaper

    def write(self, data: bytes) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._reaper.pass_by(half)
        return self._file.write(data)

    def __enter__(self) -> _HalfFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
