"""SDEdit: a given video, made noisy up to some timestep and denoised from there, under any diffusers scheduler."""

from __future__ import annotations

import torch
from diffusers import LMSDiscreteScheduler, PNDMScheduler, SchedulerMixin

_LMS_ORDER = 4


def sdedit_timesteps(scheduler: SchedulerMixin, num_inference_steps: int, noise_timestep: float) -> torch.Tensor:
    """Lay out a schedule, and give the part of it that lies below `noise_timestep`.

    The scheduler is set to begin there. What follows is `scheduler.add_noise(latents, noise, timesteps[:1])`, and the
    usual loop over the timesteps, with `history_option` among the options of `scheduler.step`. Latents are not
    multiplied by `init_noise_sigma`.

    Args:
        scheduler: Any diffusers noise scheduler.
        num_inference_steps: Steps of the whole schedule, from pure noise.
        noise_timestep: T' in (0, `num_train_timesteps`]: the steps at timesteps t < T' are made. The paper's is 600 of
            1000; of 50 evenly spaced steps, 30 lie below it.
    Shapes:
        -> (K,), descending; K calls of the scheduler.

    Raises:
        ValueError: if T' is outside its range, no timestep of the schedule lies below it, or the scheduler cannot begin
            in the middle.
    Source: Meng et al., SDEdit (arXiv:2108.01073).
    """
    name = type(scheduler).__name__
    if not hasattr(scheduler, "add_noise") or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"expected a noise scheduler with alphas_cumprod and add_noise (DDIM, Euler, ...); got {name}")
    total = scheduler.config.num_train_timesteps
    if not 0 < noise_timestep <= total:
        raise ValueError(f"noise_timestep must lie in (0, {total}]; got {noise_timestep}")
    if isinstance(scheduler, PNDMScheduler) and not scheduler.config.skip_prk_steps:
        raise ValueError(f"a {name} begins in the middle only with skip_prk_steps=True; got False")
    scheduler.set_timesteps(num_inference_steps)
    order = getattr(scheduler, "order", 1)
    nodes = torch.as_tensor(scheduler.timesteps)[::order]
    if isinstance(scheduler, PNDMScheduler):
        nodes = nodes.unique().flip(0)  # the second of its timesteps stands there twice
    below = int((nodes >= noise_timestep).sum())
    if below == len(nodes):
        raise ValueError(
            f"no step lies below noise_timestep={noise_timestep:g} with num_inference_steps={num_inference_steps}; the "
            f"lowest is at {float(nodes[-1]):g}"
        )
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(below * order)
    if isinstance(scheduler, PNDMScheduler):  # its second call makes the first step again, better
        rest = nodes[below:]
        return torch.cat([rest[:2], rest[1:]])
    return scheduler.timesteps[below * order :]


def history_option(scheduler: SchedulerMixin, step: int) -> dict[str, int]:
    """Give the option of `scheduler.step` that says how many steps were made, for schedulers that cannot count them.

    LMS takes the length of its history from the place in the whole schedule, which is wrong where the run began later.

    Args:
        scheduler: Any scheduler.
        step: Calls made before this one.
    """
    return {"order": min(step + 1, _LMS_ORDER)} if isinstance(scheduler, LMSDiscreteScheduler) else {}
