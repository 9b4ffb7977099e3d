"""Makes HARIVO's videos for the experiments: each from its caption, the same noise everywhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from longvid.pipelines.harivo import HARIVOPipeline
from longvid.pipelines.window_strategies import Joint, Streamed
from longvid.reproduce.cross_method import Joined
from longvid.reproduce.experiment import Measured, Setup, Variant
from longvid.reproduce.harivo import MODEL, Mitigation
from longvid.reproduce.video_bench import VideoBench, generators_of
from longvid.reproduce.video_measures import LEAST_STEP, directed_scenes, read_steadiness, read_videos, steps_of
from longvid.samplers.randomized_blending import Cut, paper_cut
from longvid.sprites.captions import caption_clip
from longvid.sprites.draw import draw
from longvid.sprites.evaluate import seam_ratio
from longvid.sprites.evaluate_scenes import fit_size, reconstruct
from longvid.sprites.judge import read_batch
from longvid.sprites.scene import SIZE, Scene
from longvid.video.windows import Window, fit_windows, plan_windows

STRETCH = 16
"""Frames of the parts in which the motion of a long video is read."""


class HARIVOBench(VideoBench):
    """Videos of a model under changes of the call; each is judged against its scene. A `how` holds call arguments."""

    kind = HARIVOPipeline
    default = MODEL

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Make the videos of scenes, or draw them, and read them."""
        scenes = directed_scenes(prompts)
        if variant.reference:
            videos = reconstruct(self.pipe.vae, draw(scenes, self.setup.size.num_frames))
        else:
            made = self.make(variant, scenes, prompts=prompts, seed=seed, output_type="pt").frames
            videos = fit_size(made.transpose(1, 2))
        return [Measured(row) for row in self.read(variant, scenes, videos)]

    def make(
        self, variant: Variant, scenes: Sequence[Scene], *, prompts: Sequence[int], seed: int, **options: Any
    ) -> Any:
        """The pipeline's output."""
        fixed = {"num_frames": self.setup.size.num_frames, "height": SIZE, "width": SIZE, **options}
        captions = [caption_clip(scene) for scene in scenes]
        call = self.call(variant) | fixed
        return self.pipeline(variant, seed)(captions, generator=generators_of(prompts, seed), **call)

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """What is read in videos (B, 3, F, 64, 64) in [0, 1]."""
        rows = zip(read_videos(scenes, videos), read_steadiness(videos), strict=True)
        return [attributes | steadiness for attributes, steadiness in rows]

    def pipeline(self, variant: Variant, seed: int) -> HARIVOPipeline:
        """The pipeline of a variant; where it is trained, of that training."""
        return self.pipe

    def call(self, variant: Variant) -> dict[str, Any]:
        """Its call arguments."""
        return dict(variant.how or {})


class MitigationBench(HARIVOBench):
    """Videos at multiples of the recommended scale of the mitigating gradient; a `how` is a `Mitigation`.

    Raises:
        ValueError: if the model recommends no number above 0, so that there is nothing to multiply.
    """

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        defaults = {**self.kind.method_defaults, **(self.pipe.config["call_defaults"] or {})}
        self.recommended, self.cap = defaults["mg_scale"], defaults.get("mg_max_ratio")
        if not isinstance(self.recommended, (int, float)) or not self.recommended > 0:
            raise ValueError(
                f"expected a model that recommends an mg_scale above 0, of which multiples are tried; {self.model}"
                f" recommends {self.recommended!r}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """With what the model recommends, on which the multiples rest."""
        return super().settings | {"mg_scale": self.recommended, "mg_max_ratio": self.cap}

    def call(self, variant: Variant) -> dict[str, Any]:
        """Scale and cap."""
        how: Mitigation = variant.how
        return {
            "mg_scale": how.multiple * self.recommended,
            "mg_max_ratio": self.cap if how.capped else math.inf,  # None would be what the model recommends
        }


def middle_cut(overlap: int, generator: torch.Generator | None = None) -> int:
    """Always the middle of an overlap: plain concatenation under shared noise."""
    return overlap // 2


CUTS: dict[str, Cut] = {"random": paper_cut, "middle": middle_cut}


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
        return {"strategy": Streamed(CUTS[how.cut]) if how.strategy == "streamed" else Joint(CUTS[how.cut])}

    def read(self, variant: Variant, scenes: Sequence[Scene], videos: Tensor) -> list[dict[str, float | None]]:
        """With the joints, and with the motion in parts of the video."""
        borders, windows = self.borders(variant), fit_windows(self.num_frames, self.size, self.overlap)
        starts = range(0, max(1, self.num_frames - STRETCH + 1), STRETCH)
        parts = [read_batch(videos[:, :, start : start + STRETCH]) for start in starts]
        rows = super().read(variant, scenes, videos)
        for index, (row, scene) in enumerate(zip(rows, scenes, strict=True)):
            seen = [part[index].sprites[0].motion == scene.sprites[0].motion for part in parts]
            row["stretches"] = sum(seen) / len(seen)
            row["seam"] = seam_ratio(videos[index], borders)
            row["worst_joint"] = worst_joint(videos[index], windows)
        return rows

    def borders(self, variant: Variant) -> list[int]:
        """The first frames behind the places where windows are joined; with random cuts, all that may be one."""
        how: Joined | None = variant.how
        if how is None or how.strategy == "streamed":
            return [window.new.start for window in plan_windows(self.num_frames, self.size, self.overlap)[1:]]
        joined = fit_windows(self.num_frames, self.size, self.overlap)[1:]
        if how.cut == "middle":
            return [window.start + window.overlap // 2 for window in joined]
        return sorted({frame for window in joined for frame in _joints(window)})


def worst_joint(video: Tensor, windows: Collection[Window]) -> float:
    r"""The largest step over any frame at which neighbouring windows may be joined, averaged over their overlaps.

    .. math:: \operatorname{mean}_k \max_{s_k \le i \le s_k + O_k} J_i \,/\,
        \max(\operatorname{median}_{i \text{ no joint}} J_i, 0.25)

    :math:`J_i` is the mean absolute difference of frames i - 1 and i on the 0-255 scale, and :math:`s_k` the first of
    the :math:`O_k` frames that window k shares with the one before. A maximum over several steps is above 1 in a video
    without joints, too: compare it with that of other videos of this length.

    Shapes:
        video (3, F, H, W) in [0, 1] -> a number.
    """
    steps = steps_of(video)
    places = [list(_joints(window)) for window in windows if window.overlap]
    inside = torch.zeros(len(steps), dtype=torch.bool)
    for place in places:
        inside[[frame - 1 for frame in place]] = True
    usual = steps[~inside] if not inside.all() else steps
    worst = [max(steps[frame - 1].item() for frame in place) for place in places]
    return sum(worst) / len(worst) / max(usual.median().item(), LEAST_STEP)


def _joints(window: Window) -> range:
    """First frames behind the cuts that a window's overlap allows."""
    return range(max(window.start, 1), window.start + window.overlap + 1)
