"""Where the latents of a window lie while they are denoised: on the device, or, of a whole video, on the host."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from longvid.pipelines.step_checkpoint import NoCheckpoint, checkpoint_of
from longvid.pipelines.window_frames import HostFrames, WindowFrames
from longvid.samplers.frame_steps import FrameSteps
from longvid.video.host_memory import fill_normal, host_memory

COPIES = 5
"""Latents of a whole video that exist at once, at most: noise, the latents before and behind a step, what the network
sees, and the prediction."""


class OnDevice:
    """Windows that fit the device of a pipeline.

    Args:
        pipe: The pipeline, while it streams.
    """

    def __init__(self, pipe: Any):
        self.pipe, self.device = pipe, pipe._device

    def put(self, latents: Tensor) -> Tensor:
        """Bring given latents here, float32."""
        return latents.to(self.device, torch.float32)

    def normal(self, shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator]) -> Tensor:
        """Draw noise, float32."""
        return randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor for all frames that are denoised together."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def steps(self, num_frames: int) -> FrameSteps:
        """What calls the scheduler; its timesteps are set."""
        return FrameSteps(self.pipe.scheduler, num_frames)

    def checkpoint(self, noise: Tensor, keys: tuple[int, ...]) -> NoCheckpoint:
        """What keeps the steps: nothing, as a window is made in a moment."""
        return NoCheckpoint()

    def frames(self, latents: Tensor) -> WindowFrames:
        """Finished latents, to be decoded when they are asked for."""
        return WindowFrames(self.pipe.vae, latents=latents)


class OnHost(OnDevice):
    """A whole video, of which one window at a time goes to the device.

    Args:
        pipe: The pipeline, while it streams.
        request: Its checked request, with `host_memory_limit` and `checkpoint`.
        frames_at_once: Frames that the scheduler sees at once, and that are handed out at once.
    """

    def __init__(self, pipe: Any, request: Any, frames_at_once: int):
        super().__init__(pipe)
        self.request, self.frames_at_once = request, frames_at_once
        height, width = request.size
        latents = height * width // pipe.vae_scale_factor**2 * pipe.latent_channels
        values = request.batch_size * request.num_frames * COPIES * latents
        self.memory = host_memory(4 * values, request.host_memory_limit)

    def put(self, latents: Tensor) -> Tensor:
        """Copy given latents, float32."""
        return self.memory.empty(latents.shape).copy_(latents)

    def normal(self, shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator]) -> Tensor:
        """Draw noise, float32."""
        return fill_normal(self.memory.empty(shape), generator)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor for the whole video, in memory or mapped into it."""
        return self.memory.empty(shape, dtype)

    def steps(self, num_frames: int) -> FrameSteps:
        """What calls the scheduler, for a few frames at a time; its timesteps are set."""
        return FrameSteps(self.pipe.scheduler, num_frames, self.frames_at_once, self.empty)

    def checkpoint(self, noise: Tensor, keys: tuple[int, ...]) -> NoCheckpoint:
        """What keeps the steps, where the request names a file."""
        return checkpoint_of(self.request, keys, noise, self.pipe)

    def frames(self, latents: Tensor) -> WindowFrames:
        """Finished latents, to be decoded part by part, onto the host."""
        return HostFrames(self.pipe.vae, latents=latents, device=self.device, frames_per_part=self.frames_at_once)
