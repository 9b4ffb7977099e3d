"""HARIVO's mitigating gradient sampling: abrupt changes between frames are pulled together at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from longvid.video.layout import check_video

from .guidance import Predict, Scale, scale_at
from .prediction import alpha_bar as alpha_bar_at
from .prediction import from_x0, math_dtype, on_device, to_x0

History: TypeAlias = Tensor | Callable[[], Tensor | None] | None
_LARGEST_OMEGA = 1000.0  # beyond it (zero terminal SNR) the sample says nothing of the video
_STILL = 1e-10  # of squared difference per element: frames that are equal up to rounding


def mitigating_gradient(
    noise_pred: Tensor,
    sample: Tensor,
    alpha_bar: Tensor | float,
    scale: float = 40.0,
    *,
    history: Tensor | None = None,
    two_sided: bool = False,
    max_ratio: float | None = None,
) -> Tensor:
    r"""Add the mitigating gradient to a noise prediction (Algorithm 1), in closed form.

    With clean estimates :math:`\hat x = (x - \sqrt{1 - \bar\alpha}\, \epsilon) / \sqrt{\bar\alpha}`, differences
    :math:`D_j = \hat x_{j+1} - \hat x_j` of neighbouring frames and :math:`n_j = \|D_j\|_2` over a whole frame,

    .. math:: \epsilon_{j+1} \leftarrow \epsilon_{j+1} + \alpha\, \frac{2 \omega}{S}\, e^{-n_j^2 / S} D_j, \qquad
        S = \frac{\mathrm{median}_j(n_j)^2}{\log(F - 1)}, \qquad \omega = \sqrt{(1 - \bar\alpha) / \bar\alpha},

    so frame j + 1 moves towards frame j, the more the closer the two are on the scale of the video's median: a pair
    three times as far apart, such as a cut, is left alone. The first frame stays.

    The maths is float32 (float64 for float64). A video of one or two frames, one whose frames are equal, and one at
    :math:`\omega > 1000`, where nothing of it is left in the sample, are returned as they are.

    Args:
        noise_pred: :math:`\epsilon`, guided already.
        sample: :math:`x`, the noisy video that it was predicted for.
        alpha_bar: :math:`\bar\alpha` in (0, 1], one number or one per video.
        scale: :math:`\alpha`, at least 0. 40 to 50 is the paper's range for latents of 4 x 32 x 32; a move of the clean
            estimate is :math:`\propto \alpha / n^2`, so smaller latents want a smaller number in proportion.
        history: Clean latents of the frames before the first one. They join the differences and are not changed.
        two_sided: Keep both terms that a frame has in the sum of Eq. 7; Algorithm 1 keeps the one towards the frame
            before.
        max_ratio: Largest share of a difference that the clean estimate may move by; None leaves the paper's formula,
            which overshoots where :math:`n < \omega \sqrt{2 \alpha \log(F - 1) / (F - 1)}`.

    Shapes:
        noise_pred, sample (B, C, F, H, W), history (B, C, M, H, W) -> (B, C, F, H, W), dtype of `noise_pred`.

    Raises:
        ValueError: if the shapes differ, the scale is negative, or `max_ratio` is not above 0.

    Source: HARIVO (arXiv:2410.07763), Eq. 6 and 7 and Algorithm 1, whose alpha_t under the roots is :math:`\bar\alpha_t`.
    """
    _check(noise_pred, sample, scale, max_ratio)
    dtype = math_dtype(noise_pred)
    share = torch.as_tensor(alpha_bar, dtype=dtype, device=noise_pred.device).reshape(-1, 1, 1, 1, 1)
    epsilon, omega = noise_pred.to(dtype), ((1 - share) / share).sqrt()
    x0 = (sample.to(dtype) - (1 - share).sqrt() * epsilon) / share.sqrt()
    move = _move(x0, omega, scale, history=history, two_sided=two_sided, max_ratio=max_ratio)
    if move is None:
        return noise_pred
    return (epsilon - move / omega.clamp(min=1e-12)).to(noise_pred.dtype)


def mitigated(
    predict: Predict,
    scheduler: SchedulerMixin,
    scale: Scale = 40.0,
    *,
    history: History = None,
    two_sided: bool = False,
    max_ratio: float | None = None,
) -> Predict:
    r"""Wrap a predictor of videos in mitigating gradient sampling: `mitigated(guided(...), scheduler)`.

    Whatever the prediction is of (epsilon, v or x0, as the scheduler's configuration says), its clean estimate moves by

    .. math:: \hat x_{j+1} \leftarrow \hat x_{j+1} - \frac{2 \alpha \omega^2}{S}\, e^{-n_j^2 / S} D_j,

    which for epsilon is `mitigating_gradient`, of whose arguments these are. It costs three passes over the latents.

    Args:
        predict: `predict(sample, timestep) -> prediction`, guided already.
        scheduler: Gives :math:`\bar\alpha` at a timestep and says what is predicted.
        scale: :math:`\alpha`, or a function of the timestep, such as a `GuidanceSchedule`; 0 leaves the prediction.
        history: Clean latents of the frames before, or a function that gives them or None: what a predictor of single
            frames needs, and what ties a chunk to the one before.
        two_sided: Whether a frame is also drawn to the one behind it.
        max_ratio: Largest share of a difference that is taken away in one step.

    Shapes:
        sample (B, C, F, h, w), timestep () or (B,) -> prediction (B, C, F, h, w), dtype of what `predict` returns.

    Raises:
        ValueError: if the scale is negative or `max_ratio` not above 0; when called, as `mitigating_gradient`.

    Source: HARIVO (arXiv:2410.07763), Sec. 3.7 and Algorithm 1.
    """
    _check_numbers(0.0 if callable(scale) else scale, max_ratio)

    def mitigated_predict(sample: Tensor, timestep: Any) -> Tensor:
        prediction = predict(sample, timestep)
        strength = scale_at(scale, timestep)
        _check(prediction, sample, strength, max_ratio)
        if strength == 0:
            return prediction
        dtype = math_dtype(prediction)
        share: Any = on_device(alpha_bar_at(scheduler, timestep).to(dtype), prediction.device)
        share = share.reshape(-1, 1, 1, 1, 1)
        x0 = to_x0(prediction.to(dtype), sample.to(dtype), timestep, scheduler)
        before = history() if callable(history) else history
        omega = ((1 - share) / share).sqrt()
        move = _move(x0, omega, strength, history=before, two_sided=two_sided, max_ratio=max_ratio)
        if move is None:
            return prediction
        change = from_x0(move, torch.zeros_like(move), timestep, scheduler)  # all three kinds are linear in x0
        return (prediction.to(dtype) + change).to(prediction.dtype)

    return mitigated_predict


def _move(
    x0: Tensor,
    omega: Tensor,
    scale: float,
    *,
    history: Tensor | None,
    two_sided: bool,
    max_ratio: float | None,
) -> Tensor | None:
    """How far every frame of a clean video moves, in x0; None if no frame does."""
    num_frames, elements = x0.shape[2], x0[0, :, 0].numel()
    if history is not None:
        _check_history(history, x0)
        x0 = torch.cat([history.to(x0), x0], dim=2)
    num_pairs = x0.shape[2] - 1
    if num_pairs < 2 or scale == 0:  # log(1) = 0: the bandwidth of a single pair is infinite
        return None
    difference = x0[:, :, 1:] - x0[:, :, :-1]
    norm = difference.square().sum(dim=(1, 3, 4), keepdim=True).sqrt()  # (B, 1, F - 1, 1, 1)
    median = norm.median(dim=2, keepdim=True).values
    bandwidth = median.square() / torch.full((), num_pairs, dtype=x0.dtype, device=x0.device).log()
    usable = (bandwidth >= _STILL * elements) & (omega <= _LARGEST_OMEGA)
    bandwidth = torch.where(usable, bandwidth, torch.ones_like(bandwidth))
    omega = torch.where(usable, omega, torch.zeros_like(bandwidth))
    share = 2 * scale * omega.square() * torch.exp(-norm.square() / bandwidth) / bandwidth
    if max_ratio is not None:
        share = share.clamp(max=max_ratio)
    pull = torch.where(usable, share * difference, torch.zeros_like(difference))
    still = torch.zeros_like(pull[:, :, :1])
    move = torch.cat([still, -pull], dim=2)
    if two_sided:
        move = move + torch.cat([pull, still], dim=2)
    return move[:, :, -num_frames:]


def _check(prediction: Tensor, sample: Tensor, scale: float, max_ratio: float | None) -> None:
    _check_numbers(scale, max_ratio)
    check_video(prediction, name="the prediction")
    if prediction.shape != sample.shape:
        raise ValueError(
            f"prediction and sample must have one shape; got {tuple(prediction.shape)} and {tuple(sample.shape)}"
        )


def _check_numbers(scale: float, max_ratio: float | None) -> None:
    if not scale >= 0:
        raise ValueError(f"the scale of the mitigating gradient must be at least 0; got {scale}")
    if max_ratio is not None and not max_ratio > 0:
        raise ValueError(f"max_ratio must be above 0, or None; got {max_ratio}")


def _check_history(history: Tensor, x0: Tensor) -> None:
    expected = (*x0.shape[:2], history.shape[2] if history.ndim == 5 else 1, *x0.shape[3:])
    if tuple(history.shape) != expected:
        shape = (*x0.shape[:2], "M", *x0.shape[3:])
        raise ValueError(f"history must be ({', '.join(map(str, shape))}); got {tuple(history.shape)}")
