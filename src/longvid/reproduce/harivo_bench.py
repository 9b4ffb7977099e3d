"""Makes HARIVO's videos for the experiments: each from its caption, the same noise everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from longvid.pipelines.harivo import HARIVOPipeline
from longvid.pipelines.window_strategies import STRATEGIES, Joint, Streamed
from longvid.reproduce.captioned_bench import CaptionedBench
from longvid.reproduce.cross_method import Joined
from longvid.reproduce.experiment import Setup, Variant
from longvid.reproduce.harivo import MODEL, Mitigation
from longvid.reproduce.joints import CUTS, joints, moving_stretches, worst_joint
from longvid.sprites.evaluate import seam_ratio
from longvid.sprites.scene import Scene
from longvid.video.windows import fit_windows, plan_windows


class HARIVOBench(CaptionedBench):
    """Videos of a HARIVO model under changes of the call; each is judged against its scene."""

    kind = HARIVOPipeline
    default = MODEL


class MitigationBench(HARIVOBench):
    """Videos at multiples of the paper's scale of the mitigating gradient; a `how` is a `Mitigation`."""

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        self.scale: float = self.kind.method_defaults["mg_scale"]
        self.cap = (self.pipe.config["call_defaults"] or {}).get("mg_max_ratio")

    @property
    def settings(self) -> dict[str, Any]:
        """With the scale that the multiples are of, and the cap that the model recommends."""
        return super().settings | {"mg_scale": self.scale, "mg_max_ratio": self.cap}

    def call(self, variant: Variant) -> dict[str, Any]:
        """Scale and cap."""
        how: Mitigation = variant.how
        return {
            "mg_scale": how.multiple * self.scale,
            "mg_max_ratio": self.cap if how.capped else math.inf,  # None would be what the model recommends
        }


class WindowsBench(HARIVOBench):
    """Videos longer than a window, made by one strategy or another; a `how` is a `Joined`.

    Raises:
        ValueError: if the videos are not longer than a window, or windows do not overlap.
    """

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        self.size, self.overlap = self.pipe.config["window_size"], self.pipe.config["overlap"]
        self.num_frames = setup.size.num_frames
        if self.num_frames <= self.size or not self.overlap:
            raise ValueError(
                f"expected videos longer than a window of {self.size} frames, and windows that overlap; got"
                f" num_frames={self.num_frames}, overlap={self.overlap}"
            )

    def call(self, variant: Variant) -> dict[str, Any]:
        """The strategy."""
        how: Joined = variant.how
        if how.strategy == "held":
            return {"strategy": STRATEGIES["held"]}
        return {"strategy": Streamed(CUTS[how.cut]) if how.strategy == "streamed" else Joint(CUTS[how.cut])}

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """With the joints, and with the motion in parts of the video."""
        borders, windows = self.borders(variant), fit_windows(self.num_frames, self.size, self.overlap)
        rows, stretches = super().read(variant, scenes, videos), moving_stretches(scenes, videos)
        for row, video, stretch in zip(rows, videos, stretches, strict=True):
            row["stretches"] = stretch
            row["seam"] = seam_ratio(video, borders)
            row["worst_joint"] = worst_joint(video, windows)
        return rows

    def borders(self, variant: Variant) -> list[int]:
        """The first frames behind the places where windows are joined; with random cuts, all that may be one."""
        how: Joined | None = variant.how
        if how is None or how.strategy in ("streamed", "held"):
            return [window.new.start for window in plan_windows(self.num_frames, self.size, self.overlap)[1:]]
        joined = fit_windows(self.num_frames, self.size, self.overlap)[1:]
        if how.cut == "middle":
            return [window.start + window.overlap // 2 for window in joined]
        return sorted({frame for window in joined for frame in joints(window)})
