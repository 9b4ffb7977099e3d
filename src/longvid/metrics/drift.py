"""What creeps in over a long video: brightness, contrast, colour and sharpness at its end against its start."""

from __future__ import annotations

from abc import abstractmethod
from array import array

import torch
from torch import Tensor

from longvid.metrics.base import Metric, MetricResult, check_frames
from longvid.metrics.curves import ends, slope, start_end_contrast

_LUMA = (0.299, 0.587, 0.114)
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def luma(frames: Tensor) -> Tensor:
    """Brightness of every pixel, ``(F, 3, H, W)`` in [0, 1] -> ``(F, H, W)`` from 0 to 255 (Rec. 601)."""
    return torch.einsum("fchw,c->fhw", frames.detach().float(), frames.new_tensor(_LUMA, dtype=torch.float32)) * 255


def lab(frames: Tensor) -> Tensor:
    """Colour as the eye measures it: sRGB ``(F, 3, H, W)`` in [0, 1] -> CIE L*a*b* ``(F, 3, H, W)``, white D65."""
    frames = frames.detach().float()
    linear = torch.where(frames <= 0.04045, frames / 12.92, ((frames + 0.055) / 1.055) ** 2.4)
    to_xyz = frames.new_tensor(_XYZ)
    xyz = torch.einsum("fchw,dc->fdhw", linear, to_xyz / to_xyz.sum(1, keepdim=True))
    cube = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = cube.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


class DriftMetric(Metric):
    """The start-end contrast (:func:`longvid.metrics.curves.start_end_contrast`) of one number per frame.

    Memory: one scalar per frame.
    """

    unit = ""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self.values = array("d")

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        self._size = check_frames(frames, self._size)
        for frame in frames.split(1):  # one by one, so that the sums do not depend on how the video was cut
            self.values.append(float(self._measure(frame)))

    @abstractmethod
    def _measure(self, frame: Tensor) -> Tensor: ...

    def compute(self) -> MetricResult:
        """The distance between the first and the last 15 % of the frames."""
        if len(self.values) < 2:
            return MetricResult(self.name, None, False, self.unit, note="it takes at least two frames")
        start, end = ends(self.values)
        details: dict[str, float | str] = {
            "start": start,
            "end": end,
            "trend per 100 frames": 100 * slope(self.values),
        }
        contrast = start_end_contrast(self.values)
        return MetricResult(self.name, contrast, False, self.unit, tuple(self.values), 0, details)


class BrightnessDrift(DriftMetric):
    """How far the mean luma of the last 15 % of the frames is from that of the first, on the scale 0 to 255.

    Memory: one scalar per frame.
    """

    name = "brightness_drift"
    about = (
        "How much darker or brighter the video has become: the mean brightness of its last 15 % against its first 15 %. "
        "The curve is the brightness of each frame, from 0 to 255."
    )

    def _measure(self, frame: Tensor) -> Tensor:
        return luma(frame).mean()


class ContrastDrift(DriftMetric):
    """How far the RMS contrast (standard deviation of the luma) has moved from start to end, on the scale 0 to 255.

    Memory: one scalar per frame.
    """

    name = "contrast_drift"
    about = (
        "How much flatter or harsher the video has become. The curve is the spread of brightness within each frame: long "
        "generation often burns in (it rises) or greys out (it falls)."
    )

    def _measure(self, frame: Tensor) -> Tensor:
        return luma(frame).std(correction=0)


class SaturationDrift(DriftMetric):
    """How far the mean chroma, the length of (a*, b*) of CIE L*a*b*, has moved from start to end.

    Memory: one scalar per frame.
    """

    name = "saturation_drift"
    about = (
        "How much more colourful or paler the video has become. The curve is the colourfulness of each frame; a steady "
        "rise is the well-known oversaturation of long autoregressive videos."
    )

    def _measure(self, frame: Tensor) -> Tensor:
        return lab(frame)[:, 1:].norm(dim=1).mean()


class SharpnessDrift(DriftMetric):
    """How far the mean difference of neighbouring pixels' luma has moved from start to end, on the scale 0 to 255.

    Memory: one scalar per frame.
    """

    name = "sharpness_drift"
    about = (
        "How much blurrier (or noisier) the video has become. The curve is the mean step in brightness from pixel to pixel "
        "in each frame: blur lowers it, noise raises it."
    )

    def _measure(self, frame: Tensor) -> Tensor:
        levels = luma(frame)[0]
        steps = [levels.diff(dim=axis).abs() for axis in range(2) if levels.shape[axis] > 1]
        return torch.cat([step.flatten() for step in steps]).mean() if steps else levels.new_zeros(())


class ColorDrift(Metric):
    r"""How far the colours have drifted: the distance of the mean colours of start and end in CIE L*a*b*.

    .. math:: \Delta E = \|\bar c_{\text{last 15 \%}} - \bar c_{\text{first 15 \%}}\|_2

    About 1 is just visible, 10 is plain to see. The curve is each frame's distance from the start. Memory: three scalars
    per frame.
    """

    name = "color_drift"
    about = (
        "How far the average colour has wandered from the start, in steps that the eye can tell apart: 1 is just visible, "
        "10 is plain to see. New things coming into view move it as well."
    )

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self.means = [array("d"), array("d"), array("d")]

    def update(self, frames: Tensor) -> None:
        """Take the next frames."""
        self._size = check_frames(frames, self._size)
        for frame in frames.split(1):
            for axis, value in zip(self.means, lab(frame)[0].mean((1, 2)).tolist(), strict=True):
                axis.append(value)

    def compute(self) -> MetricResult:
        """The distance, in Delta E (CIE76)."""
        if len(self.means[0]) < 2:
            return MetricResult(self.name, None, False, "ΔE", note="it takes at least two frames")
        both = [ends(axis) for axis in self.means]
        details: dict[str, float | str] = {
            f"{when} {axis}": pair[place]
            for axis, pair in zip(("L*", "a*", "b*"), both, strict=True)
            for place, when in enumerate(("start", "end"))
        }
        start = [pair[0] for pair in both]
        curve = tuple(
            sum((value - first) ** 2 for value, first in zip(color, start, strict=True)) ** 0.5
            for color in zip(*self.means, strict=True)
        )
        value = sum((end - first) ** 2 for first, end in both) ** 0.5
        return MetricResult(self.name, value, False, "ΔE", curve, 0, details)
