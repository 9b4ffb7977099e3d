"""A window that goes on from a finished one: randomized blending where the window before is known already."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .guidance import Predict
from .prediction import add_noise, from_x0, math_dtype
from .randomized_blending import Cut, Generators, checked_cut, paper_cut, per_video


def continued(
    predict: Predict,
    known: Tensor,
    noise: Tensor,
    scheduler: SchedulerMixin,
    generator: Generators = None,
    *,
    cut: Cut = paper_cut,
    context_noise: float = 1.0,
) -> Predict:
    r"""Predict a window whose first O frames exist, joining both at a random frame of the overlap at every call.

    With a cut f drawn anew for each call, the network sees the first f frames as the finished ones, noised to the
    timestep, and the others as they are,

    .. math:: x_t = \mathrm{concat}\big(\sqrt{\bar\alpha_t}\, y^{1:f} + \sqrt{1 - \bar\alpha_t}\, \epsilon^{1:f},\;
        x_t^{f+1:F}\big),

    and the first f frames of the prediction are replaced by the one whose clean estimate is y. It is `blended` over two
    windows of which the first is finished, so its memory is that of one window.

    Where things are is decided at strong noise, at which nothing can be seen of frames that are as noisy. With a
    `context_noise` k below 1 the network sees the held frames as they are at the timestep k t, while it is told t:

    .. math:: \sqrt{\bar\alpha_{k t}}\, y^{1:f} + \sqrt{1 - \bar\alpha_{k t}}\, \epsilon^{1:f}

    Args:
        predict: `predict(sample, timestep) -> prediction` for the whole window.
        known: y, the clean latents of the overlap.
        noise: :math:`\epsilon`, the noise that those frames were made from: then both windows share it.
        scheduler: Gives :math:`\bar\alpha` at a timestep and says what is predicted.
        generator: The only source of the cuts: one for the batch, or one per video.
        cut: `cut(overlap, generator) -> f` in [0, O].
        context_noise: k, in [0, 1].

    Shapes:
        known, noise (B, C, O, h, w); sample (B, C, F, h, w), timestep () -> (B, C, F, h, w).

    Raises:
        ValueError: if known and noise differ in shape, or for another `context_noise`; when called, if they do not fit the
            sample, or a cut lies outside of the overlap.
    """
    if known.ndim != 5 or known.shape != noise.shape:
        raise ValueError(
            f"known and noise must be latents (B, C, O, h, w) of one shape; got {tuple(known.shape)} and {tuple(noise.shape)}"
        )
    check_context_noise(context_noise)
    overlap = known.shape[2]

    def continued_predict(sample: Tensor, timestep: Any) -> Tensor:
        if sample.shape[2] < overlap or sample[:, :, :overlap].shape != known.shape:
            raise ValueError(f"expected a sample that begins with {tuple(known.shape)}; got {tuple(sample.shape)}")
        dtype = math_dtype(sample)
        clean, eps = known.to(sample.device, dtype), noise.to(sample.device, dtype)
        generators = per_video(generator, sample.shape[0])
        cuts = [checked_cut(cut, overlap, each) for each in generators]
        first = torch.tensor(cuts, device=sample.device).reshape(-1, 1, 1, 1, 1)
        held = torch.arange(overlap, device=sample.device).reshape(1, 1, -1, 1, 1) < first
        noised = add_noise(clean, eps, timestep if context_noise == 1 else context_noise * timestep, scheduler)
        own, rest = sample[:, :, :overlap], sample[:, :, overlap:]
        prediction = predict(torch.cat([torch.where(held, noised.to(sample.dtype), own), rest], dim=2), timestep)
        implied = from_x0(clean, own.to(dtype), timestep, scheduler).to(prediction.dtype)
        start = torch.where(held, implied, prediction[:, :, :overlap])
        return torch.cat([start, prediction[:, :, overlap:]], dim=2)

    return continued_predict


def check_context_noise(context_noise: float) -> None:
    """Refuse a share of the timestep outside of [0, 1]."""
    if not 0 <= context_noise <= 1:
        raise ValueError(f"context_noise is a share of the timestep, in [0, 1]; got {context_noise!r}")
