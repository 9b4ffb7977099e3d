"""What all metrics of neighbouring frames and their optical flow share."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from longvid.metrics.base import Metric
from longvid.metrics.flow import PAPER_SIZE, Flow, FramePairs, SharedFlow, make_flow

STATIC = 1e-3  # squared pixels: a video that moves less than 0.03 pixels a frame stands still
TOO_SHORT = "it takes at least two frames"


class FlowMetric(Metric):
    """A metric of neighbouring frames and the optical flow between them.

    Memory: one frame, one flow, and the subclass's scalars per frame.

    Args:
        flow: The optical flow; by default RAFT where its weights are, OpenCV's DIS otherwise.
        flow_size: Height and width the frames are resized to before; None leaves them as they are. The papers use 720 x 720.

    Raises:
        MissingWeights: if no flow is given and none can be made here.
    """

    def __init__(self, *, flow: Flow | None = None, flow_size: tuple[int, int] | None = PAPER_SIZE) -> None:
        self._flow = flow if isinstance(flow, SharedFlow) else SharedFlow(make_flow() if flow is None else flow)
        self._pairs = FramePairs(flow_size)

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        for before, after in self._pairs(frames):
            self._step(before, after)

    @abstractmethod
    def _step(self, before: Tensor, after: Tensor) -> None: ...

    def _note(self, more: str = "") -> str:
        note = f"optical flow: {self._flow.name}, {self._pairs.describe()}"
        return f"{more}; {note}" if more else note
