"""The part of a scheduler's configuration that says how much noise each timestep holds."""

from __future__ import annotations

from typing import Any

_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


def noise_schedule(scheduler: Any) -> dict[str, Any]:
    """Those settings of a diffusers scheduler that fix its betas: as arguments, they give another class the same noise."""
    return {name: scheduler.config[name] for name in _BETAS if scheduler.config.get(name) is not None}
