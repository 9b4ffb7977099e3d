"""Numbers over time: how the start of a curve compares with its end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

SHARE = 0.15


def ends(curve: Sequence[float], share: float = SHARE) -> tuple[float, float]:
    """The means of the first and of the last `share` of a curve, one number of it at least.

    Raises:
        ValueError: if the curve is empty or `share` does not lie in (0, 0.5].
    """
    if not len(curve) or not 0 < share <= 0.5:
        raise ValueError(f"expected numbers and a share in (0, 0.5]; got {len(curve)} numbers and share={share}")
    count = max(1, round(share * len(curve)))
    return fmean(curve[:count]), fmean(curve[-count:])


def start_end_contrast(curve: Sequence[float], share: float = SHARE) -> float:
    r"""How far the end of a video has drifted from its start in any measure M that has one number per frame.

    .. math:: \Delta = |M(\text{first 15 \%}) - M(\text{last 15 \%})|

    Raises:
        ValueError: if the curve is empty or `share` does not lie in (0, 0.5].

    Source: FramePack (arXiv:2504.12626), start-end contrast.
    """
    start, end = ends(curve, share)
    return abs(end - start)


def slope(curve: Sequence[float]) -> float:
    """The least-squares slope of a curve, per step; 0 for fewer than two numbers."""
    count = len(curve)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, fmean(curve)
    spread = count * (count * count - 1) / 12
    return sum((index - middle) * (value - mean) for index, value in enumerate(curve)) / spread
