"""Motion-aware warp error, as the paper defines it and as the released code computes it, and its two halves."""

from __future__ import annotations

from array import array
from statistics import fmean

from torch import Tensor

from longvid.metrics.base import MetricResult
from longvid.metrics.flow import PAPER_SIZE, Flow
from longvid.metrics.flow_metric import STATIC, TOO_SHORT, FlowMetric
from longvid.metrics.warp import magnitude, splat, visible, warp_backward


class OpticalFlowScore(FlowMetric):
    r"""OFS, how much a video moves: the mean squared length of all flow vectors between neighbouring frames.

    .. math:: \mathrm{OFS} = \operatorname{mean}_{i,p} |w_i(p)|^2

    Memory: one frame; one scalar per frame.

    Source: StreamingT2V (arXiv:2403.14773), section 5.1.
    """

    name = "ofs"
    about = (
        "How much the video moves: the squared length of the optical flow from each frame to the next, averaged. "
        "Zero is a still picture. It is one half of MAWE and neither good nor bad by itself."
    )

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        super().__init__(flow=flow, flow_size=flow_size)
        self.scores = array("d")

    def _step(self, before: Tensor, after: Tensor) -> None:
        self.scores.append(float(self._flow(before, after).square().sum(0).mean()))

    def compute(self) -> MetricResult:
        """The mean over all pairs, in squared pixels."""
        if not self.scores:
            return MetricResult(self.name, None, None, "px²", note=TOO_SHORT)
        return MetricResult(self.name, fmean(self.scores), None, "px²", tuple(self.scores), 1, note=self._note())


class WarpError(FlowMetric):
    r"""W, how badly neighbouring frames match where the flow says they are the same thing.

    .. math:: W = \operatorname{mean}_i \operatorname{mean}_{p\ \text{visible}} \|x_i(p) - x_{i+1}(p + w_i(p))\|^2

    with pixels on the scale 0 to 255 and the squared distance summed over the three colours. Occluded pixels
    (:func:`longvid.metrics.warp.visible`) are left out; a pair in which nothing is visible counts with all its pixels.
    Memory: one frame; two scalars per frame.

    Source: StreamingT2V (arXiv:2403.14773), W in Eq. 9; Lai et al. (ECCV 2018).
    """

    name = "warp_error"
    about = (
        "How much a thing changes its look from frame to frame while it moves: each frame is compared with the next one, "
        "moved back along the optical flow, where nothing is hidden. Zero is perfect, and so is a still picture."
    )

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        super().__init__(flow=flow, flow_size=flow_size)
        self.errors, self.shown = array("d"), array("d")

    def _step(self, before: Tensor, after: Tensor) -> None:
        there, back = self._flow(before, after), self._flow(after, before)
        distance = ((warp_backward(after, there) - before) * 255).square().sum(0)
        seen = visible(there, back)
        self.shown.append(float(seen.float().mean()))
        self.errors.append(float(distance[seen].mean() if seen.any() else distance.mean()))

    def compute(self) -> MetricResult:
        """The mean over all pairs, in squared grey levels."""
        if not self.errors:
            return MetricResult(self.name, None, False, note=TOO_SHORT)
        details: dict[str, float | str] = {"visible share of the pixels": fmean(self.shown)}
        return MetricResult(
            self.name, fmean(self.errors), False, "", tuple(self.errors), 1, details=details, note=self._note()
        )


class MAWE(FlowMetric):
    r"""Motion-aware warp error in the paper's form: errors count less in a video that moves.

    .. math:: \mathrm{MAWE}(V) = W(V) / \mathrm{OFS}(V)

    with :class:`WarpError` W and :class:`OpticalFlowScore` OFS. Undefined where nothing moves (OFS below 0.001 squared
    pixels). Memory: one frame; three scalars per frame.

    Source: StreamingT2V (arXiv:2403.14773), Eq. 9.
    """

    name = "mawe"
    about = (
        "Consistency and motion in one number: the warp error divided by the motion. Low means that things keep their look "
        "although they move a lot. A video that stands still has no MAWE. Noise can look like motion to the flow and "
        "lower it, so read it together with warp_error and ofs."
    )

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        super().__init__(flow=flow, flow_size=flow_size)
        self._error = WarpError(flow=self._flow, flow_size=None)
        self._score = OpticalFlowScore(flow=self._flow, flow_size=None)

    def _step(self, before: Tensor, after: Tensor) -> None:
        self._error._step(before, after)
        self._score._step(before, after)

    def compute(self) -> MetricResult:
        """W / OFS; both are among the details."""
        error, motion = self._error.compute(), self._score.compute()
        if error.value is None or motion.value is None:
            return MetricResult(self.name, None, False, note=TOO_SHORT)
        details = {"warp_error": error.value, "ofs": motion.value, **error.details}
        if motion.value < STATIC:
            still = self._note("the video stands still, so that there is no motion to divide by")
            return MetricResult(self.name, None, False, details=details, note=still)
        curve = tuple(value / motion.value for value in error.curve)
        return MetricResult(self.name, error.value / motion.value, False, "", curve, 1, details, self._note())


class ReleasedMAWE(FlowMetric):
    r"""Motion-aware warp error as the released code computes it; its numbers and the paper's cannot be compared.

    .. math:: \operatorname{mean}_i \frac{W_i}{c\, m_i}, \qquad c = 9.5, \quad m_i = \operatorname{mean}_p |w_i(p)|

    W_i is the mean squared difference per colour, on the scale 0 to 255, between frame i + 1 and frame i thrown forward
    along the flow (:func:`longvid.metrics.warp.splat`), over the pixels that were hit (all pixels if none was). Pairs
    that stand still (m_i below 0.03 pixels), where the released code divides by about zero, are left out and counted.
    Memory: one frame; one scalar per frame.

    Args:
        flow: The optical flow; by default RAFT where its weights are, OpenCV's DIS otherwise.
        flow_size: Height and width the frames are resized to before; None leaves them as they are.
        coefficient: c.

    Source: ``mawe.py`` of the released StreamingT2V.
    """

    name = "mawe_released"
    about = (
        "MAWE as StreamingT2V's released program computes it: a ratio per pair of frames, with a constant of 9.5. Compare "
        "it with numbers of that program only, not with the paper's formula above."
    )

    def __init__(
        self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE, coefficient: float = 9.5
    ) -> None:
        if not coefficient > 0:
            raise ValueError(f"coefficient must be positive; got {coefficient}")
        super().__init__(flow=flow, flow_size=flow_size)
        self._coefficient = coefficient
        self.ratios, self._errors, self._motions = array("d"), array("d"), array("d")

    def _step(self, before: Tensor, after: Tensor) -> None:
        flow = self._flow(before, after)
        warped, known = splat(before, flow)
        distance = ((after - warped) * 255).square().mean(0)
        error = float(distance[known].mean() if known.any() else distance.mean())
        motion = float(magnitude(flow).mean())
        self._errors.append(error)
        self._motions.append(motion)
        self.ratios.append(error / (self._coefficient * motion) if motion >= STATIC**0.5 else float("nan"))

    def compute(self) -> MetricResult:
        """The mean of the ratios of all pairs that move."""
        if not self.ratios:
            return MetricResult(self.name, None, False, note=TOO_SHORT)
        moving = [ratio for ratio in self.ratios if ratio == ratio]
        details: dict[str, float | str] = {
            "warp error per colour": fmean(self._errors),
            "mean flow in px": fmean(self._motions),
            "pairs that stand still": float(len(self.ratios) - len(moving)),
        }
        if not moving:
            note = self._note("the video stands still, so that there is no motion to divide by")
            return MetricResult(self.name, None, False, details=details, note=note)
        return MetricResult(self.name, fmean(moving), False, "", tuple(self.ratios), 1, details, self._note())
