"""Enhances drawn videos of low quality for the experiment on randomized blending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longvid.metrics.flow import make_flow
from longvid.metrics.motion import FlowDeviation
from longvid.pipelines.enhance import VideoEnhancerPipeline
from longvid.reproduce.experiment import Measured, Setup, Variant
from longvid.reproduce.joints import CUTS, joints, middle_cut, worst_joint
from longvid.reproduce.streaming_t2v import DISTANCE, ENHANCER, FLOW_STD, FLOW_TIME, Enhanced
from longvid.reproduce.video_bench import VideoBench, generators_of
from longvid.reproduce.video_measures import SEAM, WORST_JOINT, directed_scenes, read_steadiness, read_videos
from longvid.sprites.captions import caption_clip
from longvid.sprites.draw import draw
from longvid.sprites.evaluate import seam_ratio
from longvid.sprites.evaluate_scenes import fit_size, reconstruct
from longvid.sprites.scene import Scene
from longvid.video.windows import Window, fit_windows

COARSER = 4
"""How many times coarser the input is than the drawn video."""
NOISE = 0.05
"""Standard deviation of its noise, of values in [0, 1]."""
FLOW_SIZE = (128, 128)
OPTIONS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 3.0, "chunk_size": 16, "overlap": 8}
"""What models are called with that recommend nothing."""


class BlendingBench(VideoBench):
    """Videos that are enhanced chunk by chunk; a `how` is an `Enhanced`.

    Raises:
        ValueError: if the videos are not longer than a chunk, or the model's chunks do not overlap.
    """

    kind = VideoEnhancerPipeline
    default = ENHANCER

    def __init__(self, setup: Setup, model: str | None = None) -> None:
        super().__init__(setup, model)
        defaults = self.pipe.config["call_defaults"] or {}
        self.call = {name: value for name, value in OPTIONS.items() if name not in defaults}
        self.options = {**self.kind.method_defaults, **self.call, **defaults}
        self.size, self.overlap = self.options["chunk_size"], self.options["overlap"]
        self.windows = fit_windows(setup.size.num_frames, self.size, self.overlap)
        if len(self.windows) < 2 or not self.overlap:
            raise ValueError(
                f"expected videos longer than a chunk of {self.size} frames, and chunks that overlap; got"
                f" num_frames={setup.size.num_frames}, overlap={self.overlap}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """With how the model is called."""
        names = ("num_inference_steps", "strength", "noise_timestep", "guidance_scale", "chunk_size", "overlap")
        return super().settings | {"call": {name: self.options.get(name) for name in names}}

    def measure(self, variant: Variant, prompts: Sequence[int], seed: int) -> list[Measured]:
        """Enhance the degraded videos of scenes and read them."""
        scenes = directed_scenes(prompts)
        drawn = draw(scenes, self.setup.size.num_frames)
        if variant.name == "input":
            videos = degraded(drawn, prompts)
        elif variant.reference:
            videos = reconstruct(self.pipe.vae, drawn)
        else:
            videos = fit_size(self.enhance(variant.how, scenes, degraded(drawn, prompts), prompts=prompts, seed=seed))
        return [Measured(row) for row in self.read(variant, scenes, videos, drawn)]

    @torch.no_grad()
    def enhance(
        self, how: Enhanced, scenes: Sequence[Scene], videos: Tensor, *, prompts: Sequence[int], seed: int
    ) -> Tensor:
        """Enhance videos (B, 3, F, H, W) in [0, 1]."""
        generators = generators_of(prompts, seed)
        shape = (
            self.pipe.latent_channels,
            videos.shape[2],
            *(n // self.pipe.vae_scale_factor for n in videos.shape[3:]),
        )
        noise = _drawn_noise(generators, shape)
        call = {**self.call, "prompt": [caption_clip(scene) for scene in scenes], "output_type": "pt"}
        if how.each_step:
            call |= {"blending": CUTS[how.cut], "generator": generators_of(prompts, seed)}
            return self.pipe(video=videos, latents=noise, **call).frames.transpose(1, 2)
        joined = torch.empty_like(videos)
        for window in self.chunks(how):
            own = noise[:, :, window.frames].clone()
            if window.overlap and not how.shared_noise:
                own[:, :, : window.overlap] = _drawn_noise(generators, (shape[0], window.overlap, *shape[2:]))
            part = videos[:, :, window.frames]
            made = self.pipe(video=part, latents=own, generator=generators_of(prompts, seed), **call).frames
            begin = self.begin(how, window)
            joined[:, :, begin : window.stop] = made.transpose(1, 2)[:, :, begin - window.start :].to(joined)
        return joined

    def chunks(self, how: Enhanced) -> tuple[Window, ...]:
        """The chunks of a variant."""
        return self.windows if how.overlap else fit_windows(self.setup.size.num_frames, self.size)

    def begin(self, how: Enhanced, window: Window) -> int:
        """The first frame that a chunk gives to the video, where that is always the same one."""
        return window.start + (middle_cut(window.overlap) if how.overlap else window.overlap)

    def borders(self, how: Enhanced | None) -> list[int]:
        """The first frames behind the places where chunks are joined; with random cuts, all that may be one."""
        if how is None or how.cut == "random":
            return sorted({frame for window in self.windows[1:] for frame in joints(window)})
        return [self.begin(how, window) for window in self.chunks(how)[1:]]

    def read(
        self, variant: Variant, scenes: Sequence[Scene], videos: Tensor, drawn: Tensor
    ) -> list[dict[str, float | None]]:
        """What is read in videos (B, 3, F, 64, 64) in [0, 1]."""
        rows = [
            first | second for first, second in zip(read_videos(scenes, videos), read_steadiness(videos), strict=True)
        ]
        for row, video, truth in zip(rows, videos, drawn, strict=True):
            row |= flow_deviations(video)
            row[SEAM.name] = seam_ratio(video, self.borders(variant.how))
            row[WORST_JOINT.name] = worst_joint(video, self.windows)
            row[DISTANCE.name] = (video - truth).abs().mean().item() * 255
        return rows


def degraded(videos: Tensor, prompts: Sequence[int]) -> Tensor:
    """Make videos (B, 3, F, H, W) in [0, 1] coarse and noisy, each by a draw of its own."""
    frames = videos.transpose(1, 2).flatten(0, 1)
    coarse = F.avg_pool2d(frames, COARSER)
    large = F.interpolate(coarse, frames.shape[-2:], mode="bilinear", align_corners=False)
    blurred = large.unflatten(0, (len(videos), videos.shape[2])).transpose(1, 2)
    noise = _drawn_noise(generators_of(prompts, -1), blurred.shape[1:])
    return (blurred + NOISE * noise).clamp(0, 1)


def flow_deviations(video: Tensor) -> Mapping[str, float | None]:
    """The deviation of the flow's magnitude over the picture, and that of its mean over time; video (3, F, H, W)."""
    metric = FlowDeviation(flow=make_flow("dis"), flow_size=FLOW_SIZE)
    metric.update(video.transpose(0, 1))
    result = metric.compute()
    return {FLOW_STD.name: result.value, FLOW_TIME.name: float(result.details["deviation of the mean over time"])}


def _drawn_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])
