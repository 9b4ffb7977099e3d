"""Does the picture pulse?"""

from __future__ import annotations

from array import array
from statistics import fmean

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.drift import luma


class Flicker(Metric):
    r"""How much regions of the picture pulse in brightness from frame to frame, on the scale 0 to 255.

    .. math:: \operatorname{mean}_{i,g} |l_{i-1}(g) - 2\,l_i(g) + l_{i+1}(g)| / 4

    with the mean luma l of the cells g of an 8 x 8 grid: a fade or an even motion cancels out, and a cell that goes back
    and forth between m - d and m + d gives d. Memory: two grids; two scalars per frame.
    """

    name = "flicker"
    about = (
        "How much regions of the picture pulse from frame to frame: the size of the pulse in grey levels of 255. Steady "
        "motion and slow fades do not count. Below about 0.5 nobody sees it."
    )

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._cells: list[Tensor] = []
        self._last: Tensor | None = None
        self.pulses, self.differences = array("d"), array("d")

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        self._size = check_frames(frames, self._size)
        for frame in frames.detach().float().split(1):
            cells = adaptive_avg_pool2d(luma(frame), 8)[0].double()
            self._cells = [*self._cells[-2:], cells]
            if len(self._cells) == 3:
                first, second, third = self._cells
                self.pulses.append(float((first - 2 * second + third).abs().mean() / 4))
            if self._last is not None:
                self.differences.append(float((frame - self._last).abs().mean() * 255))
            self._last = frame.clone()

    def compute(self) -> MetricResult:
        """The mean pulse; the mean difference of neighbouring pixels in time and VBench's score are among the details."""
        if not self.pulses:
            return MetricResult(self.name, None, False, note="it takes at least three frames")
        difference = fmean(self.differences)
        details: dict[str, float | str] = {
            "mean difference of neighbouring frames": difference,
            "temporal flickering as in VBench (1 is best)": (255 - difference) / 255,
        }
        return MetricResult(self.name, fmean(self.pulses), False, "", tuple(self.pulses), 1, details)
