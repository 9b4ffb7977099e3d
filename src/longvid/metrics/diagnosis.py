"""Is a new chunk of a video fit to go on from? Cheap measures of its frames, and limits for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from torch import Tensor

from longvid.metrics.drift import ColorDrift, ContrastDrift, luma
from longvid.metrics.seams import Seams


@dataclass(frozen=True)
class Limits:
    """Where a measure of a chunk becomes a problem.

    Attributes:
        seam: Highest change of the picture over the chunk's border, as a multiple of the usual change around it.
        color: Largest distance of the chunk's mean colour from the anchor's, in Delta E.
        contrast: Largest distance of the chunk's RMS contrast from the anchor's, in grey levels of 0 to 255.
        still: Smallest median change from frame to frame, in grey levels.
        black: Smallest brightness of a frame's brightest pixel, in grey levels.
    """

    seam: float = 2.0
    color: float = 15.0
    contrast: float = 10.0
    still: float = 0.1
    black: float = 16.0

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for name, value in vars(self).items():
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise ValueError(f"the limit {name} must be a number of at least 0; got {value!r}")


@dataclass(frozen=True)
class Finding:
    """A measure of a chunk beyond its limit.

    Attributes:
        problem: `seam`, `color`, `contrast`, `still`, `black` or `nan`.
        value: The measure; None for `nan`, which is no matter of degree.
        limit: Its limit; None for `nan`.
    """

    problem: str
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        """For people, with the numbers."""
        what, low = _WORDS[self.problem]
        if self.value is None or self.limit is None:
            return what
        return f"{what} ({self.problem} {self.value:.3g}, {'at least' if low else 'at most'} {self.limit:g} is fine)"

    @property
    def severity(self) -> float:
        """How far beyond its limit it is, above 1; infinite for `nan`."""
        if self.value is None or self.limit is None:
            return float("inf")
        low = _WORDS[self.problem][1]
        return (1 + self.limit) / (1 + self.value) if low else (1 + self.value) / (1 + self.limit)


_WORDS = {
    "seam": ("the picture jumps at the chunk's border", False),
    "color": ("the colours have drifted from the first frame", False),
    "contrast": ("the contrast has drifted from the first frame", False),
    "still": ("nothing moves", True),
    "black": ("a frame is black", True),
    "nan": ("a frame holds NaN or infinity", False),
}


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of a chunk.

    Attributes:
        scores: By the names of `Limits`; None where it is undefined, such as the seam of a first chunk.
        findings: Those beyond their limits.
    """

    scores: dict[str, float | None]
    findings: tuple[Finding, ...]


def diagnose(
    frames: Iterable[Tensor],
    *,
    before: Iterable[Tensor] = (),
    anchor: Tensor | None = None,
    limits: Limits | None = None,
) -> Diagnosis:
    r"""Measure a chunk.

    With :math:`J_i` the mean absolute difference of frames i - 1 and i in grey levels, b the chunk's first frame,
    :math:`\bar c` mean colours in CIE L*a*b*, :math:`\sigma` RMS contrasts, a the anchor and n the chunk's frames:
    `seam` is that of :class:`~longvid.metrics.seams.Seams`; `color` is
    :math:`\|\operatorname{mean}_n \bar c_n - \bar c_a\|_2`; `contrast` is
    :math:`|\operatorname{mean}_n \sigma_n - \sigma_a|`; `still` is :math:`\operatorname{median}_{n \neq b} J_n`;
    `black` is the smallest over n of the brightest luma. Memory: a few frames; a few scalars per frame.

    Args:
        frames: Those of the chunk, each ``(3, H, W)`` in [0, 1].
        before: Some frames directly before them; the last 9 say all. Without them, there is no seam.
        anchor: The video's first frame; by default the chunk's own.
        limits: Where problems begin.

    Raises:
        ValueError: if there are no frames, their sizes differ, or they leave [0, 1].
    """
    limits = limits or Limits()
    earlier = [frame[None] for frame in before]
    seams, color, contrast = Seams(borders=[len(earlier)] if earlier else None), ColorDrift(), ContrastDrift()
    for frame in earlier:
        seams.update(frame)
    brightest: list[float] = []
    for frame in (frame[None] for frame in frames):
        if not brightest:
            first = frame if anchor is None else anchor[None]
            color.update(first)
            contrast.update(first)
        for metric in (seams, color, contrast):
            metric.update(frame)
        brightest.append(float(luma(frame).max()))
    if not brightest:
        raise ValueError("a chunk has at least one frame; got none")
    steps = seams.steps[-len(brightest) + 1 :] if len(brightest) > 1 else ()
    moved = [fmean(axis[1:]) - axis[0] for axis in color.means]
    scores = {
        "seam": seams.compute().value,
        "color": sum(value**2 for value in moved) ** 0.5,
        "contrast": abs(fmean(contrast.values[1:]) - contrast.values[0]),
        "still": median(steps) if len(steps) else None,
        "black": min(brightest),
    }
    return Diagnosis(scores, tuple(_beyond(scores, limits)))


def _beyond(scores: dict[str, float | None], limits: Limits) -> Iterable[Finding]:
    for name, value in scores.items():
        limit = getattr(limits, name)
        if value is not None and (value < limit if _WORDS[name][1] else value > limit):
            yield Finding(name, value, limit)
