"""Does a video go round in circles?"""

from __future__ import annotations

from array import array

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from longvid.metrics.base import Metric, MetricResult, check_frames

_GRID = 12
_SEEN = 2.0  # mean grey levels by which frames must differ before a return counts as one
_RETURN = 0.75


class Loops(Metric):
    r"""The share of frames that come back to an earlier frame after the picture was different in between.

    With the distance d_l between small versions of frame i and frame i - l (12 x 12 pixels, mean absolute difference on
    the scale 0 to 255), the depth of the best return is

    .. math:: r_i = \max_l \left(1 - d_l / \max_{k < l} d_k\right)

    where the picture has been away by at least 2 grey levels, and 0 otherwise: 1 if frame i repeats an older one exactly.
    Frames with a depth of 0.75 or more count. Returns over more than `max_lag` frames are not seen. Memory: `max_lag`
    small frames; one scalar per frame.

    Args:
        max_lag: The longest way back that is looked at, in frames.

    Raises:
        ValueError: if `max_lag` is below 2.
    """

    name = "loops"
    about = (
        "How much of the video is a repetition: the share of its frames that look like a frame from before, although the "
        "picture was different in between. The curve is how exact the return is at each frame, 1 for a perfect copy. Things "
        "that really swing or circle repeat as well."
    )

    def __init__(self, *, max_lag: int = 512) -> None:
        if max_lag < 2:
            raise ValueError(f"max_lag must be at least 2 frames; got {max_lag}")
        self._size: tuple[int, int] | None = None
        self._past = torch.zeros(max_lag, 3 * _GRID * _GRID)
        self._sums, self._counts = torch.zeros(max_lag, dtype=torch.float64), torch.zeros(max_lag, dtype=torch.int64)
        self.depths = array("d")

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        self._size = check_frames(frames, self._size)
        for frame in frames.detach().float().split(1):
            self._step(adaptive_avg_pool2d(frame, _GRID).flatten() * 255)

    def _step(self, small: Tensor) -> None:
        max_lag, seen = len(self._past), len(self.depths)
        filled = min(seen, max_lag)
        lags = torch.arange(1, filled + 1)
        distances = (self._past[(seen - lags) % max_lag] - small).abs().mean(1)
        self._sums[:filled] += distances
        self._counts[:filled] += 1
        self.depths.append(float(_returns(distances).max()) if filled > 1 else 0.0)
        self._past[seen % max_lag] = small

    def compute(self) -> MetricResult:
        """The share, in [0, 1]; the lag at which the video as a whole repeats best is among the details."""
        if len(self.depths) < 3:
            return MetricResult(self.name, None, False, note="it takes at least three frames")
        share = sum(depth >= _RETURN for depth in self.depths) / len(self.depths)
        known = self._counts >= min(8, len(self.depths) // 2)  # a mean over fewer pairs says little
        depths = _returns((self._sums / self._counts.clamp(min=1))[known])
        details: dict[str, float | str] = {}
        if len(depths) > 1 and float(depths.max()) > 0:
            details["best lag in frames"] = float(depths.argmax()) + 2
            details["depth at the best lag"] = float(depths.max())
        note = f"returns over at most {len(self._past)} frames are looked for"
        return MetricResult(self.name, share, False, "", tuple(self.depths), 0, details, note)


def _returns(distances: Tensor) -> Tensor:
    """Depth of the return at every lag from 2 on; one number, 0, if there is no such lag."""
    if len(distances) < 2:
        return distances.new_zeros(1)
    away = distances.cummax(0).values[:-1]
    return torch.where(away >= _SEEN, 1 - distances[1:] / away.clamp(min=_SEEN), away.new_zeros(())).clamp(min=0)
