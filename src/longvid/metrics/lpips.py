"""LPIPS along a video: how far each frame looks from the first one, or from the one before."""

from __future__ import annotations

import os
from statistics import fmean

import torch
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.perceptual import PerceptualDistance, load_perceptual
from longvid.metrics.weights import need_file, usable_device

BACKBONE = "torchvision's weights of AlexNet (alexnet-owt-7be5be79.pth) or VGG-16 (vgg16-397923af.pth)"
LINEAR = "the linear weights of LPIPS v0.1 for that network (alex.pth or vgg.pth of richzhang/PerceptualSimilarity)"


class LPIPSToFirst(Metric):
    """LPIPS between every frame and the first, averaged: how far the scene has drifted. One number per frame is kept.

    Args:
        network: A network that is loaded already; else the two files are read.
        backbone: File of torchvision's AlexNet or VGG-16.
        linear: File of the linear weights of LPIPS v0.1.
        device: Name of the device.

    Raises:
        MissingWeights: if a file is not there.
        ValueError: if a file holds another network, or frames are smaller than the network can read.

    Source: Zhang et al. 2018; StreamingT2V (arXiv:2403.14773), Sec. D.2, which does not say which frames it compares.
    """

    name = "lpips"
    about = "How different each frame looks from the first one: 0 is the same picture, about 0.7 another one."

    def __init__(
        self,
        *,
        network: PerceptualDistance | None = None,
        backbone: str | os.PathLike[str] | None = None,
        linear: str | os.PathLike[str] | None = None,
        device: str | None = None,
    ) -> None:
        what = f"the metric {self.name!r}"
        if network is None:
            features = need_file(backbone, what=what, option=f"{self.name}.backbone", file=BACKBONE)
            last = need_file(linear, what=what, option=f"{self.name}.linear", file=LINEAR)
            network = load_perceptual(features, last, usable_device(device))
        self.network = network
        self._size: tuple[int, int] | None = None
        self._kept: list[Tensor] | None = None
        self._distances: list[float] = []

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        self._size = check_frames(frames, self._size)
        if min(self._size) < self.network.smallest_side():
            raise ValueError(
                f"LPIPS with {self.network.name} reads frames of at least {self.network.smallest_side()} pixels a side;"
                f" got {self._size[0]} x {self._size[1]}"
            )
        device = self.network.weights[0].device
        for frame in frames.float().to(device):
            features = self.network.read(frame[None])
            if self._kept is None:
                self._kept = features
                continue
            self._distances.append(float(self.network.compare(self._kept, features)))
            self._keep(features)

    def compute(self) -> MetricResult:
        if not self._distances:
            return MetricResult(self.name, None, False, note="it takes two frames or more")
        details: dict[str, float | str] = {"last": self._distances[-1], "largest": max(self._distances)}
        value = fmean(self._distances)
        return MetricResult(
            self.name, value, False, "", tuple(self._distances), 1, details, f"LPIPS {self.network.name}"
        )

    def _keep(self, features: list[Tensor]) -> None:
        """The first frame stays what the others are compared with."""


class LPIPSToPrevious(LPIPSToFirst):
    """LPIPS between neighbouring frames, averaged; arguments, errors and source as of :class:`LPIPSToFirst`.

    A video that stands still has 0: read it together with the amount of motion.
    """

    name = "lpips_previous"
    about = "How different each frame looks from the one before it: 0 is a video that stands still."

    def _keep(self, features: list[Tensor]) -> None:
        self._kept = features
