"""Gaussian noise, and ART-V's corruption of reference latents, which keeps errors from piling up over frames."""

from __future__ import annotations

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from .prediction import math_dtype


def augment(
    latents: torch.Tensor,
    level: int | torch.Tensor,
    alphas_cumprod: torch.Tensor | SchedulerMixin,
    *,
    generator: torch.Generator | list[torch.Generator] | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Return latents that carry the noise of training timestep `level`.

    .. math:: y' = \sqrt{\bar\alpha_k}\, y + \sqrt{1 - \bar\alpha_k}\, n

    Blank latents must be blanked after this, not before.

    Args:
        latents: Clean latents y.
        level: k in [0, number of training timesteps): one for all, or one per sample. ART-V trains with k uniform in
            [0, 550] and samples with k = 200, which is 0.86815 y + 0.49629 n on Stable Diffusion's schedule.
        alphas_cumprod: The table of :math:`\bar\alpha`, or a scheduler that has it.
        generator: Source of n, or one source per sample.
        noise: n itself; `generator` is then left alone.
    Shapes:
        latents (B, ...), level () or (B,), noise as latents -> (B, ...), dtype of latents; maths in float32.

    Raises:
        ValueError: if a level is outside the table or not an integer, or the shapes do not fit.
    Source: ART-V, Sec. 3.3 and Eq. 3 (arXiv:2311.18834), after Ho et al. (arXiv:2106.15282).
    """
    table = alphas_cumprod if torch.is_tensor(alphas_cumprod) else getattr(alphas_cumprod, "alphas_cumprod", None)
    if table is None:
        raise ValueError(f"expected a table of alpha bar or a scheduler; got {type(alphas_cumprod).__name__}")
    levels = torch.as_tensor(level, device=latents.device)
    if levels.is_floating_point() or levels.ndim > 1 or (levels.ndim == 1 and len(levels) not in (1, len(latents))):
        raise ValueError(
            f"expected an integer level or one per sample ({len(latents)}); "
            f"got {levels.dtype} of shape {tuple(levels.shape)}"
        )
    if int(levels.min()) < 0 or int(levels.max()) >= len(table):
        raise ValueError(f"level must be in [0, {len(table)}); got {level}")
    dtype = math_dtype(latents)
    noise = draw_noise(latents.to(dtype), generator=generator, noise=noise)
    share = table.to(latents.device)[levels].to(dtype).reshape(-1, *[1] * (latents.ndim - 1))
    return (share.sqrt() * latents.to(dtype) + (1 - share).sqrt() * noise).to(latents.dtype)


def draw_noise(
    like: torch.Tensor,
    *,
    generator: torch.Generator | list[torch.Generator] | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return standard normal noise with the shape, dtype and device of `like`: `noise` itself where it is given.

    A list of generators has one per sample, so each sample's noise is what it would be in a batch of its own.

    Raises:
        ValueError: if `noise` has another shape, or there is not one generator per sample.
    """
    if noise is not None:
        if noise.shape != like.shape:
            raise ValueError(f"expected noise of shape {tuple(like.shape)}; got {tuple(noise.shape)}")
        return noise.to(like)
    if isinstance(generator, list) and len(generator) not in (1, len(like)):
        raise ValueError(f"expected one generator per sample ({len(like)}); got {len(generator)}")
    return randn_tensor(tuple(like.shape), generator=generator, device=like.device, dtype=like.dtype)
