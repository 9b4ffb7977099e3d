"""A guidance scale that depends on the noise level, as an object with a name that a configuration can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

GuidanceScale: TypeAlias = float | Callable[[float], float]


@dataclass(frozen=True)
class GuidanceSchedule:
    r"""Guides more strongly at high noise levels: `high` while :math:`t \ge` `until` :math:`T`, then `low`.

    Every pipeline takes one as `guidance_scale`, or a dictionary of its fields (in a model's `call_defaults`, in YAML),
    or any other function of the timestep. Called with a timestep in [0, T) it gives the scale.

    Args:
        high: Scale at high noise levels, or two: the first at T, falling in a straight line to the second at `until` T.
        low: Scale at the others.
        until: Where the one becomes the other, a share of T in [0, 1].
        num_train_timesteps: T.

    Raises:
        ValueError: if a scale is negative, `until` outside [0, 1], or T below 1.

    Source: HARIVO, App. D: "a CFG scale of 10-15 up to 0.7 T and 7.5 thereafter".

    Example:
        >>> schedule = GuidanceSchedule(high=(15.0, 10.0))
        >>> schedule(1000), schedule(850), schedule(700), schedule(699)
        (15.0, 12.5, 10.0, 7.5)
    """

    high: float | tuple[float, float] = 12.5
    low: float = 7.5
    until: float = 0.7
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        scales = [self.low, *self._ends()]
        if not all(_is_number(scale) and scale >= 0 for scale in scales):
            raise ValueError(
                f"high must be one scale or two, and all scales at least 0; got high={self.high!r}, low={self.low!r}"
            )
        if not _is_number(self.until) or not 0 <= self.until <= 1:
            raise ValueError(f"until must be a share of T in [0, 1]; got {self.until!r}")
        if not _is_number(self.num_train_timesteps) or self.num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps must be at least 1; got {self.num_train_timesteps!r}")

    def __call__(self, timestep: float) -> float:
        """Give the scale at a timestep."""
        border = self.until * self.num_train_timesteps
        if timestep < border:
            return float(self.low)
        first, last = self._ends()
        length = self.num_train_timesteps - border
        share = (min(timestep, self.num_train_timesteps) - border) / length if length else 1.0
        return float(last + (first - last) * share)

    def _ends(self) -> tuple[Any, Any]:
        ends = tuple(self.high) if isinstance(self.high, (list, tuple)) else (self.high, self.high)
        return ends if len(ends) == 2 else (None, None)  # type: ignore[return-value]


def as_guidance_scale(value: Any) -> Any:
    """Turn a dictionary into the `GuidanceSchedule` it describes; anything else comes back as it is.

    Raises:
        ValueError: for a field that a schedule does not have.
    """
    if not isinstance(value, Mapping):
        return value
    known = [field.name for field in fields(GuidanceSchedule)]
    unknown = sorted(str(name) for name in value if name not in known)
    if unknown:
        raise ValueError(f"a guidance schedule has {', '.join(known)}; got {', '.join(unknown)}")
    return GuidanceSchedule(**value)


def can_guide(scale: Any) -> bool:
    """Whether a scale may ever be above 1, so that the unconditional branch is needed."""
    return callable(scale) or (scale or 0) > 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
