"""SCuts: the number of scene cuts that PySceneDetect finds in a video that should have none."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.weights import need_package

RATE = 25.0  # of the time codes; cuts are counted in frames, so that it changes nothing


class SceneCuts(Metric):
    r"""SCuts: scene cuts found by PySceneDetect's `AdaptiveDetector` with its defaults, frame by frame.

    A frame is a cut if its change in hue, saturation and brightness is at least 15 and at least 3 times the mean change of
    the two frames before and the two after it, and 15 frames or more lie between it and the cut before. Frames whose
    longer side is above 256 pixels are first made smaller, as PySceneDetect does. A cut nearer than 2 frames to the end
    cannot be found. The state is five numbers and the cuts.

    Raises:
        MissingWeights: if PySceneDetect (`scenedetect`) is not installed.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 5.1; the paper's figure is the mean over videos.
    """

    name = "scuts"
    about = "Sudden changes of the whole picture, as where one shot ends and another begins. A long take has none."

    def __init__(self) -> None:
        detectors = need_package("scenedetect.detectors", "the metric 'scuts'")
        self._cv2 = need_package("cv2", "the metric 'scuts'")
        self._timecode: Any = need_package("scenedetect", "the metric 'scuts'").FrameTimecode
        self._factor = need_package("scenedetect.scene_manager", "the metric 'scuts'").compute_downscale_factor
        self._detector: Any = detectors.AdaptiveDetector()
        self._size: tuple[int, int] | None = None
        self._num_frames = 0
        self._cuts: list[int] = []

    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        pixels = (frames.float() * 255).round().byte().permute(0, 2, 3, 1).flip(-1).cpu().numpy()
        for frame in pixels:
            time = self._timecode(self._num_frames, fps=RATE)
            self._cuts += [cut.frame_num for cut in self._detector.process_frame(time, self._smaller(frame))]
            self._num_frames += 1

    def compute(self) -> MetricResult:
        note = "PySceneDetect AdaptiveDetector, default parameters"
        details: dict[str, float | str] = {"cuts at frames": ", ".join(map(str, self._cuts)) or "none"}
        if not self._num_frames:
            return MetricResult(self.name, None, False, "cuts", note="no frames were seen")
        return MetricResult(self.name, float(len(self._cuts)), False, "cuts", details=details, note=note)

    def _smaller(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        factor = self._factor(max(width, height))
        if factor <= 1:
            return np.ascontiguousarray(frame)
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        return self._cv2.resize(np.ascontiguousarray(frame), size, interpolation=self._cv2.INTER_LINEAR)
