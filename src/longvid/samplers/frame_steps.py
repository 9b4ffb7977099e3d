"""The scheduler's part of a step over a whole video, a few frames at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .randomized_blending import Empty

_FIXED = {"_internal_dict", "config"}
_NO_TABLE = object()


class FrameSteps:
    r"""Calls a scheduler for a few frames of a video after another, so that its temporaries are those of a few frames.

    Every group of frames has a scheduler of its own, the given one or a copy that shares its tables, so what a
    scheduler remembers from step to step stays with the frames. The update :math:`x_{t-1} = u(x_t, \epsilon, t)` of a
    diffusers scheduler acts on every value by itself, so groups change nothing; one with thresholding compares all
    values of a video, and has one group. Noise that a scheduler draws at a step is drawn group after group.

    Args:
        scheduler: Its timesteps are set.
        num_frames: Frames of the video.
        frames_per_step: Frames of a group; None makes one group of all.
        empty: `empty(shape, dtype)` gives the tensors of the whole video, where there is more than one group.

    Shapes:
        every tensor here is (B, C, F, h, w) with F = `num_frames`; what comes back is never what was handed in.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        num_frames: int,
        frames_per_step: int | None = None,
        empty: Empty | None = None,
    ):
        thresholding = bool(scheduler.config.get("thresholding", False))
        size = num_frames if thresholding or frames_per_step is None else frames_per_step
        self.groups = [slice(start, min(start + size, num_frames)) for start in range(0, num_frames, size)]
        # tables of the noise schedule, which no step writes to: all groups share them
        self._tables = {name: value for name, value in vars(scheduler).items() if _is_table(value)}
        self.schedulers: list[Any] = [scheduler, *(self._copied(scheduler) for _ in self.groups[1:])]
        self._empty = empty or (lambda shape, dtype: torch.empty(shape, dtype=dtype))

    def begin(self, noise: Tensor) -> Tensor:
        r"""Pure noise as the scheduler begins with it, :math:`\sigma_{max}\, \epsilon`."""
        return self._joined(lambda scheduler, part: part * scheduler.init_noise_sigma, noise)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents, made noisy: `scheduler.add_noise`; timesteps (B,)."""
        return self._joined(
            lambda scheduler, part, eps: scheduler.add_noise(part, eps.to(part), timesteps), clean, noise
        )

    def scaled(self, sample: Tensor, timestep: Any) -> Tensor:
        """What the network sees: `scheduler.scale_model_input`, or the sample itself where that changes nothing."""
        first = self._parts(self.groups[0], sample)[0]
        if self.schedulers[0].scale_model_input(first, timestep) is first:
            return sample
        return self._joined(lambda scheduler, part: scheduler.scale_model_input(part, timestep), sample)

    def step(self, prediction: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Tensor:
        """The latents behind a step: `scheduler.step`, whose options these are."""
        return self._joined(
            lambda scheduler, *parts: scheduler.step(parts[0], timestep, parts[1], **options, return_dict=False)[0],
            prediction,
            sample,
        )

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """All that the schedulers remember from steps: tensors by name, and the rest in the types that JSON knows.

        Raises:
            ValueError: if a scheduler holds something else.
        """
        tensors: dict[str, Tensor] = {}
        plain = [
            {
                name: _packed(value, f"{number}.{name}", tensors)
                for name, value in vars(scheduler).items()
                if name not in _FIXED and value is not self._tables.get(name, _NO_TABLE)
            }
            for number, scheduler in enumerate(self.schedulers)
        ]
        return tensors, plain

    def restore(self, plain: list[dict[str, Any]], tensor: Callable[[str], Tensor]) -> None:
        """Give the schedulers back what `state` gave.

        Args:
            plain: Its second part.
            tensor: Gives a tensor of its first part by its name.

        Raises:
            ValueError: if it is that of other schedulers.
        """
        if len(plain) != len(self.schedulers):
            raise ValueError(
                f"the state is that of {len(plain)} groups of frames; this video has {len(self.schedulers)}"
            )
        for scheduler, values in zip(self.schedulers, plain, strict=True):
            known = set(vars(scheduler)) - _FIXED - set(self._tables)  # some attributes appear with the first step
            if not known <= set(values) or any(name in _FIXED or hasattr(type(scheduler), name) for name in values):
                raise ValueError(f"the state is not that of a {type(scheduler).__name__}")
            for name, value in values.items():
                setattr(scheduler, name, _unpacked(value, tensor))

    def _copied(self, scheduler: Any) -> Any:
        return copy.deepcopy(scheduler, {id(table): table for table in self._tables.values()})

    def _parts(self, group: slice, *tensors: Tensor) -> list[Tensor]:
        return [tensor if len(self.groups) == 1 else tensor[:, :, group] for tensor in tensors]

    def _joined(self, update: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """The update of every group in its place; that of a single group as it is."""
        whole = None
        for scheduler, group in zip(self.schedulers, self.groups, strict=True):
            part = update(scheduler, *self._parts(group, *tensors))
            if len(self.groups) == 1:
                return part
            if whole is None:
                whole = self._empty((*part.shape[:2], tensors[0].shape[2], *part.shape[3:]), part.dtype)
            whole[:, :, group] = part
        assert whole is not None  # there is at least one group
        return whole


def _is_table(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name, "device": str(value.device)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value))
        return {"array": name, "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(entry, f"{name}.{index}", tensors) for index, entry in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"a scheduler that holds a {type(value).__name__} ({name}) cannot be kept in a file")


def _unpacked(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *more = value.items()
    if kind == "tensor":
        return tensor(content).to(more[0][1])
    if kind == "array":
        return tensor(content).numpy().astype(more[0][1])
    entries = [_unpacked(entry, tensor) for entry in content]
    return entries if kind == "list" else tuple(entries)
