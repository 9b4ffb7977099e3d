"""How much a video moves, whether the motion dies, and how smooth it is."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from statistics import fmean, pstdev

from torch import Tensor

from longvid.metrics.base import MetricResult
from longvid.metrics.curves import ends, slope
from longvid.metrics.flow import PAPER_SIZE, Flow
from longvid.metrics.flow_metric import STATIC, TOO_SHORT, FlowMetric
from longvid.metrics.warp import magnitude

STILL = STATIC**0.5


class MotionAmount(FlowMetric):
    """The mean length of the flow vectors between neighbouring frames, in pixels per frame.

    Memory: one frame; one scalar per frame.
    """

    name = "motion"
    about = (
        "How far things move from one frame to the next, on average over the picture. Neither good nor bad by itself; the "
        "curve shows when the video stops or starts to move."
    )

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        super().__init__(flow=flow, flow_size=flow_size)
        self.lengths = array("d")

    def _step(self, before: Tensor, after: Tensor) -> None:
        self.lengths.append(float(magnitude(self._flow(before, after)).mean()))

    def compute(self) -> MetricResult:
        """The mean over all pairs; the trend and the longest standstill are among the details."""
        if not self.lengths:
            return MetricResult(self.name, None, None, "px", note=TOO_SHORT)
        start, end = ends(self.lengths)
        details: dict[str, float | str] = {
            "start": start,
            "end": end,
            "trend in px per 100 frames": 100 * slope(self.lengths),
            "longest standstill in frames": float(_longest_run(length < STILL for length in self.lengths)),
        }
        return MetricResult(
            self.name, fmean(self.lengths), None, "px", tuple(self.lengths), 1, details=details, note=self._note()
        )


class Stagnation(MotionAmount):
    r"""The share of its motion that a video loses on the way.

    .. math:: \max(0,\; 1 - m_{end} / m_{start})

    with the :class:`MotionAmount` of the first and the last 15 % of the steps. 0: it ends with as much motion as it
    began, or with more; 1: it stands still in the end. Undefined where it hardly moves at the start (below 0.03 pixels).
    Memory: one frame; one scalar per frame.
    """

    name = "stagnation"
    about = (
        "How much of its motion the video has lost at the end: 0 means none, 1 means that it has come to a standstill, a "
        "common failure of long generation. A video may of course also end calmly on purpose."
    )

    def compute(self) -> MetricResult:
        """The loss, in [0, 1]; the signed change is among the details."""
        amount = super().compute()
        if amount.value is None:
            return MetricResult(self.name, None, False, note=amount.note)
        start, end = float(amount.details["start"]), float(amount.details["end"])
        if start < STILL:
            still = self._note("the video stands still at its start, so that there is no motion to lose")
            return MetricResult(self.name, None, False, details={"start": start, "end": end}, note=still)
        details = {**amount.details, "relative change": end / start - 1}
        return MetricResult(self.name, max(0.0, 1 - end / start), False, details=details, note=self._note())


class FlowDeviation(FlowMetric):
    r"""How unevenly a video moves: the standard deviation of the flow magnitudes between neighbouring frames.

    .. math:: \operatorname{mean}_i \operatorname{std}_p |w_i(p)|

    The deviation over time of the mean magnitude is among the details. Memory: one frame; two scalars per frame.

    Source: StreamingT2V (arXiv:2403.14773), appendix D.3.
    """

    name = "flow_std"
    about = (
        "How unevenly the picture moves: the standard deviation of the flow's length over the picture, averaged over the "
        "steps. StreamingT2V compares ways to join chunks by it: jumps at a seam drive it up. A fast small object on a "
        "still background does so, too, so compare it between versions of one video."
    )

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        super().__init__(flow=flow, flow_size=flow_size)
        self.deviations, self.means = array("d"), array("d")

    def _step(self, before: Tensor, after: Tensor) -> None:
        length = magnitude(self._flow(before, after))
        self.deviations.append(float(length.std(correction=0)))
        self.means.append(float(length.mean()))

    def compute(self) -> MetricResult:
        """The mean over all pairs, in pixels."""
        if not self.deviations:
            return MetricResult(self.name, None, False, "px", note=TOO_SHORT)
        details: dict[str, float | str] = {"deviation of the mean over time": pstdev(self.means)}
        return MetricResult(
            self.name,
            fmean(self.deviations),
            False,
            "px",
            tuple(self.deviations),
            1,
            details=details,
            note=self._note(),
        )


def _longest_run(flags: Iterable[bool]) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest
