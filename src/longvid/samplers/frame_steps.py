"""The scheduler's part of a step over a whole video, a few frames at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .randomized_blending import Empty


class FrameSteps:
    r"""Calls a scheduler for a few frames of a video after another, so that its temporaries are those of a few frames.

    Every group of frames has a scheduler of its own, the given one or a copy, so what a scheduler remembers from step
    to step stays with the frames. The update :math:`x_{t-1} = u(x_t, \epsilon, t)` of a diffusers scheduler acts on
    every value by itself, so groups change nothing; one with thresholding compares all values of a video, and has one
    group. Noise that a scheduler draws at a step is drawn group after group.

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
        self.schedulers: list[Any] = [scheduler, *(copy.deepcopy(scheduler) for _ in self.groups[1:])]
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
