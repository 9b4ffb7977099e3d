"""What is kept while a whole video is denoised, so that a process that ends can be followed by another."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from longvid.pipelines.control_frames import ControlFrames
from longvid.samplers.frame_steps import FrameSteps
from longvid.video.tensor_file import frames_of, parts_of, save_tensors

FORMAT, FORMAT_VERSION = "longvid-steps", "1"
_HELP = ". Name another file, or delete it: all steps are made again then"
_NOT_COMPARED = {
    "video", "generator", "output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs",
    "callback_on_chunk_end", "host_memory_limit", "frames_per_batch", "checkpoint", "resume",
}  # fmt: skip


class NoCheckpoint:
    """Keeps nothing."""

    def save(self, done: int, latents: Tensor, steps: FrameSteps, generators: Mapping[str, Any]) -> None:
        """Keep the latents behind a step."""

    def restore(self, latents: Tensor, steps: FrameSteps, generators: Mapping[str, Any]) -> int:
        """Read what was kept into these; give the number of steps that are made."""
        return 0

    def remove(self) -> None:
        """The video is finished."""


class StepCheckpoint(NoCheckpoint):
    """The latents of a whole video behind a step, with all that the next step needs, in a safetensors file.

    Args:
        path: The file; its folder exists.
        facts: What made the latents, by name; a file is gone on with only if they are the same.
    """

    def __init__(self, path: Path, facts: dict[str, str]):
        self.path, self.facts = path, facts

    def save(self, done: int, latents: Tensor, steps: FrameSteps, generators: Mapping[str, Any]) -> None:
        """Replace what was kept, in one step.

        A disk that is full is a warning, and what was kept before stays; so is a sampler that holds what no file can.
        """
        states = {f"random.{name}.{i}": each.get_state() for name, g in generators.items() for i, each in _each(g)}
        try:
            tensors, plain = steps.state()
            kept = {"latents": latents, **states, **tensors}
            metadata = {
                "format": FORMAT, "format_version": FORMAT_VERSION, "done": str(done), "scheduler": json.dumps(plain),
                "facts": json.dumps(self.facts, sort_keys=True),
            }  # fmt: skip
            metadata["sha256"] = _sum(metadata, kept.items())
            save_tensors(self.path, kept, metadata)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            warnings.warn(f"cannot keep the steps made so far in {self.path}: {why}", stacklevel=2)

    def restore(self, latents: Tensor, steps: FrameSteps, generators: Mapping[str, Any]) -> int:
        """Read what was kept into these; give the number of steps that are made, 0 where there is no file.

        Raises:
            ValueError: if the file is damaged, or something else made it, which is named.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = self._check(file.metadata() or {}, tuple(latents.shape), file)
                for part, frames in frames_of(file.get_slice("latents")):
                    latents[:, :, part] = frames
                others = ((name, file.get_tensor(name)) for name in file.keys() if name != "latents")  # noqa: SIM118
                if metadata.pop("sha256") != _sum(metadata, [("latents", latents), *others]):
                    raise ValueError(f"{self.path} is damaged, or was changed: its checksum does not fit{_HELP}")
                for name, generator in generators.items():
                    for index, each in _each(generator):
                        each.set_state(file.get_tensor(f"random.{name}.{index}"))
                steps.restore(json.loads(metadata["scheduler"]), file.get_tensor)
                return int(metadata["done"])
        except (SafetensorError, OSError, KeyError, IndexError, TypeError, RuntimeError) as error:
            raise ValueError(f"{self.path} is damaged, or no checkpoint of a video's steps: {error}{_HELP}") from error

    def _check(self, metadata: dict[str, str], shape: tuple[int, ...], file: Any) -> dict[str, str]:
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{self.path} is no checkpoint of a video's steps")
        if metadata.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"{self.path} was written by a newer longvid; upgrade longvid to go on from it")
        kept = json.loads(metadata["facts"])
        different = sorted(name for name in {**kept, **self.facts} if kept.get(name) != self.facts.get(name))
        if different or tuple(file.get_slice("latents").get_shape()) != shape:
            raise ValueError(
                f"{self.path} was kept for another video, and would not go on bit for bit; different: "
                f"{', '.join(different) or 'the shape of the latents'}. Name another checkpoint, or delete it"
            )
        return metadata

    def remove(self) -> None:
        """Delete the file, which is not needed any more."""
        self.path.unlink(missing_ok=True)


class FollowedCheckpoint(StepCheckpoint):
    """One that another process writes: it is gone on with, and left as it is."""

    def save(self, done: int, latents: Tensor, steps: FrameSteps, generators: Mapping[str, Any]) -> None:
        """The other process keeps the same."""

    def remove(self) -> None:
        """The other process deletes it."""


def check_checkpoint(request: Any) -> None:
    """Check the file that a request names.

    Raises:
        ValueError: if there can be no such file, or no other call could make the same video.
    """
    path = Path(request.checkpoint)
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"checkpoint must be a file in a folder that exists; got {str(path)!r}")
    if request.generator is None and getattr(request, "resume", None) is None:
        raise ValueError("checkpoint needs a generator with a seed: without one, no other call makes the same video")


def checkpoint_of(request: Any, keys: tuple[int, ...], latents: Tensor, pipe: Any) -> NoCheckpoint:
    """What a request keeps; see `facts_of`."""
    if request.checkpoint is None:
        return NoCheckpoint()
    kind = StepCheckpoint if pipe.processes.is_main else FollowedCheckpoint
    return kind(Path(request.checkpoint), facts_of(request, keys, latents, pipe))


def facts_of(request: Any, keys: tuple[int, ...], latents: Tensor, pipe: Any) -> dict[str, str]:
    """Describe all that the latents behind a step depend on.

    Args:
        request: Checked, with all defaults.
        keys: Of the noise.
        latents: What the first step begins with: the encoded video, or noise.
        pipe: The pipeline.
    """
    asked = {name: getattr(request, name) for name in sorted(request.field_names() - _NOT_COMPARED)}
    return {
        **{f"{name} of the model": value for name, value in pipe.known_fingerprint().items()},
        **{name: _described(value) for name, value in asked.items()},
        "seed": json.dumps(keys),
        "video" if hasattr(request, "video") else "noise": _digest(latents),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "device": str(pipe.device.type),
        "dtype": str(pipe.unet.dtype),
        "scheduler": json.dumps(dict(pipe.scheduler.config), sort_keys=True, default=str),
    }


def _described(value: Any) -> str:
    if isinstance(value, ControlFrames):
        value = value.images
    if isinstance(value, Tensor):
        return _digest(value)
    if isinstance(value, (np.ndarray, Image)):
        return f"{type(value).__name__} {_digest(torch.from_numpy(np.array(value)))}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_described(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_described, value)) + "]"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__} {_described({f.name: getattr(value, f.name) for f in fields(value)})}"
    if callable(value):  # its code cannot be compared
        return getattr(value, "__qualname__", type(value).__name__)
    return json.dumps(value, default=str)


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(str((tuple(tensor.shape), tensor.dtype)).encode())
    for part in parts_of(tensor):
        digest.update(part)
    return digest.hexdigest()


def _sum(metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A checksum of a whole file, whatever the order of its tensors."""
    parts = {**metadata, **{f"tensor {name}": _digest(tensor) for name, tensor in tensors}}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _each(generator: Any) -> list[tuple[int, torch.Generator]]:
    return list(enumerate(generator if isinstance(generator, (list, tuple)) else [generator]))
