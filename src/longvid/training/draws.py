"""Where the random choices of a micro-batch come from."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor


def batch_draws(seed: int, index: int) -> torch.Generator:
    """The generator of micro-batch `index`; it depends on these two numbers alone.

    PyTorch's CPU generator reads the lower 32 bits of its seed, so runs with different seeds start far apart on one
    ring of 2^32 generators.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + index) % 2**32)


def draw_timesteps(scheduler: DDPMScheduler, count: int, power: float, generator: torch.Generator) -> Tensor:
    r"""Timesteps (count,) with density :math:`\propto (t / T)^p`, by :math:`t = \lfloor T u^{1 / (p + 1)} \rfloor`.

    p = 0 is uniform; above, strong noise comes up more often. Where nothing of the motion can be seen yet, text alone says
    where things go; for a video that is so at the last few timesteps only.
    """
    steps = scheduler.config.num_train_timesteps
    level = torch.rand(count, generator=generator, device=generator.device) ** (1 / (power + 1))
    return (level * steps).long().clamp(max=steps - 1)
