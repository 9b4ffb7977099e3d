"""Can it be seen where one chunk ends and the next begins?"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames

_NEIGHBOURS = 8
_FLOOR = 0.25


class Seams(Metric):
    r"""How much larger the step over a chunk border is than the steps around it.

    With the mean absolute difference J_i of frames i - 1 and i on the scale 0 to 255, and a border b being the first frame
    of a chunk,

    .. math:: \operatorname{mean}_b\; J_b / \max(\operatorname{median}_{i} J_i,\; 0.25)

    with i over the steps at most 8 from b that are no borders themselves. 1: the border cannot be told from its
    neighbours. Undefined without borders. Memory: one frame; one scalar per frame.

    Args:
        borders: Frames at which a new chunk begins, counted from 0; those behind the end of the video are ignored.

    Raises:
        ValueError: if a border is below 1.
    """

    name = "seams"
    about = (
        "Whether one can see where the chunks were joined: the change of the picture at a border, as a multiple of the usual "
        "change around it. 1 means invisible, 3 is a visible jump. The curve is the change at every step, in grey levels."
    )

    def __init__(self, *, borders: Iterable[int] | None = None) -> None:
        self._borders = None if borders is None else sorted(set(borders))
        if self._borders and self._borders[0] < 1:
            raise ValueError(f"a border is the first frame of a chunk, at least 1; got {self._borders[0]}")
        self._size: tuple[int, int] | None = None
        self._last: Tensor | None = None
        self.steps = array("d")

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        self._size = check_frames(frames, self._size)
        for frame in frames.detach().float().split(1):
            if self._last is not None:
                self.steps.append(float((frame - self._last).abs().mean() * 255))
            self._last = frame.clone()

    def compute(self) -> MetricResult:
        """The mean ratio over all borders; the worst of them is among the details."""
        if not self.steps:
            return MetricResult(self.name, None, False, note="it takes at least two frames")
        largest = max(range(len(self.steps)), key=self.steps.__getitem__)
        details: dict[str, float | str] = {"frame after the largest step": float(largest + 1)}
        curve = tuple(self.steps)
        borders = [border for border in self._borders or () if border <= len(self.steps)]
        around = {border: self._around(border, borders) for border in borders}
        around = {border: steps for border, steps in around.items() if steps}
        if not around:
            note = "no chunk borders are known" if self._borders is None else "no border has steps around it"
            return MetricResult(self.name, None, False, "", curve, 1, details, note)
        ratios = {border: self.steps[border - 1] / max(median(steps), _FLOOR) for border, steps in around.items()}
        worst = max(ratios, key=ratios.__getitem__)
        details |= {
            "borders": float(len(ratios)),
            "worst border": float(worst),
            "ratio at the worst border": ratios[worst],
            "excess in grey levels": fmean(self.steps[border - 1] - median(steps) for border, steps in around.items()),
        }
        return MetricResult(self.name, fmean(ratios.values()), False, "", curve, 1, details)

    def _around(self, border: int, borders: Sequence[int]) -> list[float]:
        near = range(max(1, border - _NEIGHBOURS), min(len(self.steps), border + _NEIGHBOURS) + 1)
        return [self.steps[frame - 1] for frame in near if frame not in borders]


def every(num_frames: int, *, first: int, period: int) -> range:
    """The borders of chunks of one size: `first`, and every `period` frames behind it, below `num_frames`.

    Raises:
        ValueError: if one of them is below 1.
    """
    if min(first, period) < 1:
        raise ValueError(f"chunks must have at least 1 frame; got first={first}, period={period}")
    return range(first, num_frames, period)
