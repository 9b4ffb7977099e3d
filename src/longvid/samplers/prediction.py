r"""Translate a network's prediction between epsilon, v and x0 at any timestep of any diffusers noise scheduler.

One convention holds in this package: `sample` is the **model input**, what a predictor `predict(sample, timestep)` sees
after `scheduler.scale_model_input`. It is variance preserving for every scheduler,

.. math:: x = \sqrt{\bar\alpha}\, x_0 + \sqrt{1 - \bar\alpha}\, \epsilon, \qquad \bar\alpha = 1 / (\sigma^2 + 1),

also for the sigma-parametrised ones (Euler, Heun, LMS, KDPM2, DPM++ 2S ancestral), whose own latents
:math:`x_0 + \sigma\epsilon` are divided by :math:`\sqrt{\sigma^2 + 1}` on the way in. Therefore, without clipping,
`to_x0(prediction, scheduler.scale_model_input(latents, t), t, scheduler)` is
`scheduler.step(prediction, t, latents).pred_original_sample`.

All maths is float32 (float64 for float64 tensors); the result has the dtype of the first argument.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import SchedulerMixin

NEAR = 1e-3  # timesteps closer than this are one; float32 holds 999.0 to 6e-5
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def on_device(timestep: torch.Tensor | float, device: torch.device) -> torch.Tensor | float:
    """Bring a timestep to the device that a network is on, without waiting for the device; a number stays.

    Only a copy to a CUDA device is not waited for: what comes to the host would be read before it is there, and MPS reads
    what is copied when its turn comes, be it gone by then.
    """
    return timestep.to(device, non_blocking=device.type == "cuda") if torch.is_tensor(timestep) else timestep


def math_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype sampler maths runs in: float64 for float64 tensors, float32 for every other."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def alpha_bar(scheduler: SchedulerMixin, timestep: torch.Tensor | float) -> torch.Tensor:
    r"""Return the signal share :math:`\bar\alpha` of the model input at `timestep`.

    A timestep of the schedule that `set_timesteps` laid out has the noise level which the scheduler itself uses there.
    Any other is read from the training table; between two entries :math:`\log\sigma` is interpolated linearly.

    Args:
        scheduler: A diffusers noise scheduler with `alphas_cumprod`.
        timestep: A number, a tensor () or one timestep per sample (B,); fractional timesteps are allowed.
    Shapes:
        () or (B,) -> the same, on the device of `timestep`; values in [0, 1].

    Raises:
        ValueError: if the scheduler has no `alphas_cumprod` (flow matching and EDM schedulers).
    """
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise ValueError(
            f"expected a noise scheduler with `alphas_cumprod` (DDIM, Euler, DPM-Solver, ...); "
            f"got {type(scheduler).__name__}"
        )
    timestep = torch.as_tensor(timestep)
    result = _interpolate(table.to(timestep.device), timestep)
    schedule = _schedule(scheduler)
    if schedule is None:
        return result
    nodes = schedule[0].to(timestep.device, torch.float32)
    shares = (1 / (schedule[1].double() ** 2 + 1)).to(result.dtype).to(timestep.device)
    distance = (timestep.to(torch.float32).unsqueeze(-1) - nodes).abs()
    index = distance.argmin(dim=-1)
    current = getattr(scheduler, "step_index", None)
    if current is not None and getattr(scheduler, "order", 1) == 1 and current < len(nodes):
        repeated = distance[..., current] < NEAR  # rounded timesteps may repeat: the running step knows which is meant
        index = torch.where(repeated, torch.full_like(index, current), index)
    on_schedule = distance.gather(-1, index.unsqueeze(-1)).squeeze(-1) < NEAR
    return torch.where(on_schedule, shares[index], result)


def to_x0(
    prediction: torch.Tensor, sample: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> torch.Tensor:
    r"""Return the clean estimate :math:`x_0` that `prediction` implies.

    .. math::
        \epsilon:\ (x - \sqrt{1-\bar\alpha}\,\epsilon) / \sqrt{\bar\alpha} \qquad
        v:\ \sqrt{\bar\alpha}\,x - \sqrt{1-\bar\alpha}\,v

    Shapes:
        prediction and sample (B, ...), timestep () or (B,) -> (B, ...).

    Raises:
        ValueError: if the scheduler's prediction type is not epsilon, v_prediction or sample.
    """
    kind = prediction_type(scheduler)
    if kind == "sample":
        return prediction
    value, x, signal, noise = _operands(prediction, sample, timestep, scheduler)
    x0 = (x - noise * value) / signal if kind == "epsilon" else signal * x - noise * value
    return x0.to(prediction.dtype)


def to_epsilon(
    prediction: torch.Tensor, sample: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> torch.Tensor:
    r"""Return the noise estimate :math:`\epsilon` that `prediction` implies; shapes and errors as `to_x0`.

    .. math::
        v:\ \sqrt{\bar\alpha}\,v + \sqrt{1-\bar\alpha}\,x \qquad
        x_0:\ (x - \sqrt{\bar\alpha}\,x_0) / \sqrt{1-\bar\alpha}
    """
    kind = prediction_type(scheduler)
    if kind == "epsilon":
        return prediction
    value, x, signal, noise = _operands(prediction, sample, timestep, scheduler)
    epsilon = signal * value + noise * x if kind == "v_prediction" else (x - signal * value) / noise
    return epsilon.to(prediction.dtype)


def from_x0(
    x0: torch.Tensor, sample: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> torch.Tensor:
    r"""Return the prediction of the scheduler's own type that implies `x0`: the inverse of `to_x0`."""
    kind = prediction_type(scheduler)
    if kind == "sample":
        return x0
    value, x, signal, noise = _operands(x0, sample, timestep, scheduler)
    prediction = (x - signal * value) / noise if kind == "epsilon" else (signal * x - value) / noise
    return prediction.to(x0.dtype)


def from_epsilon(
    epsilon: torch.Tensor, sample: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> torch.Tensor:
    r"""Return the prediction of the scheduler's own type that implies `epsilon`: the inverse of `to_epsilon`."""
    kind = prediction_type(scheduler)
    if kind == "epsilon":
        return epsilon
    value, x, signal, noise = _operands(epsilon, sample, timestep, scheduler)
    prediction = (value - noise * x) / signal if kind == "v_prediction" else (x - noise * value) / signal
    return prediction.to(epsilon.dtype)


def add_noise(
    x0: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> torch.Tensor:
    r"""Return the model input :math:`\sqrt{\bar\alpha}\,x_0 + \sqrt{1-\bar\alpha}\,\epsilon` of any scheduler.

    The `add_noise` of sigma-parametrised schedulers returns :math:`x_0 + \sigma\epsilon` instead, which a network must
    not see unscaled; this one is what training wants, whichever scheduler a pipeline holds.

    Shapes:
        x0 and noise (B, ...), timestep () or (B,) -> (B, ...).
    """
    clean, epsilon, signal, spread = _operands(x0, noise, timestep, scheduler)
    return (signal * clean + spread * epsilon).to(x0.dtype)


def prediction_type(scheduler: SchedulerMixin) -> str:
    """Return what the scheduler takes its network to predict: "epsilon", "v_prediction" or "sample".

    Raises:
        ValueError: for any other type, for instance "flow_prediction".
    """
    kind = getattr(scheduler, "config", {}).get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise ValueError(f"expected a scheduler whose prediction_type is one of {PREDICTION_TYPES}; got {kind!r}")
    return kind


def _operands(
    first: torch.Tensor, second: torch.Tensor, timestep: torch.Tensor | float, scheduler: SchedulerMixin
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return both tensors in the maths dtype, and sqrt(abar), sqrt(1 - abar) shaped to multiply them."""
    if first.shape != second.shape:
        raise ValueError(f"expected two tensors of one shape; got {tuple(first.shape)} and {tuple(second.shape)}")
    dtype = math_dtype(first)
    share = cast(torch.Tensor, on_device(alpha_bar(scheduler, timestep).to(dtype), first.device))
    if share.ndim > 1 or (share.ndim == 1 and share.shape[0] not in (1, first.shape[0])):
        raise ValueError(f"expected one timestep or one per sample ({first.shape[0]}); got shape {tuple(share.shape)}")
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return first.to(dtype), second.to(dtype), share.sqrt(), (1 - share).sqrt()


def _interpolate(table: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    position = timestep.to(torch.float64 if table.dtype == torch.float64 else torch.float32)
    position = position.clamp(0, len(table) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(table) - 1)
    weight = position - low
    log_ratio = (table / (1 - table)).log()  # -2 log sigma
    between = torch.lerp(log_ratio.take(low), log_ratio.take(high), weight).sigmoid()
    return torch.where(weight == 0, table.take(low), between)


def _schedule(scheduler: SchedulerMixin) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the nodes of the current schedule with their sigmas, or None where the table is all there is.

    Schedulers of order 2 list a node in every second place; their midpoints have no sigma of their own in `sigmas`, and
    are placed on the table by interpolating log sigma, which is what `alpha_bar` does off the schedule.
    """
    sigmas, timesteps = getattr(scheduler, "sigmas", None), getattr(scheduler, "timesteps", None)
    laid_out = getattr(scheduler, "num_inference_steps", None) is not None
    if not laid_out or sigmas is None or timesteps is None or len(sigmas) < len(timesteps):
        return None
    order = getattr(scheduler, "order", 1)
    return timesteps[::order], sigmas[: len(timesteps) : order]
