"""What every metric is: an object that is shown the frames in order and then says its number."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor


class MissingWeights(ValueError):
    """A metric cannot be computed here: a weights file or a package is missing; the message says which and from where."""


@dataclass(frozen=True)
class MetricResult:
    """What a metric says about one video.

    Attributes:
        name: The metric's name.
        value: The number; None where it is undefined, and then `note` says why.
        higher_is_better: False where lower is better, None where neither is.
        unit: Unit of `value`, such as ``px``; empty for a bare number.
        curve: One number per frame or per step between frames, in order of time.
        curve_start: The frame that the first number of `curve` belongs to: 0 for a number per frame, 1 for one per
            step from a frame to the next.
        details: Further numbers and words, by name.
        note: What was used (such as the optical flow), or why the value is undefined.
    """

    name: str
    value: float | None
    higher_is_better: bool | None
    unit: str = ""
    curve: tuple[float, ...] = ()
    curve_start: int = 0
    details: dict[str, float | str] = field(default_factory=dict)
    note: str = ""


class Metric(ABC):
    """A number about one video that is read once, from the first frame to the last.

    Memory does not grow with the number of frames: the state is of fixed size, or holds a few scalars per frame; each
    metric says which. How the frames are cut into calls of :meth:`update` does not change the result.

    Attributes:
        name: The name in :data:`METRICS`.
        about: What the number means, in plain words, for the page.
    """

    name: ClassVar[str]
    about: ClassVar[str] = ""

    @abstractmethod
    def update(self, frames: Tensor) -> None:
        """Take the next frames.

        Args:
            frames: Floats in [0, 1], ``(F, 3, H, W)``, any F of at least 1.

        Raises:
            ValueError: if they are no such tensor or differ in size from the frames before.
        """

    @abstractmethod
    def compute(self) -> MetricResult:
        """The result over all frames so far; frames may follow."""


METRICS: dict[str, str | Callable[..., Metric]] = {
    "mawe": "longvid.metrics.mawe:MAWE",
    "mawe_released": "longvid.metrics.mawe:ReleasedMAWE",
    "warp_error": "longvid.metrics.mawe:WarpError",
    "ofs": "longvid.metrics.mawe:OpticalFlowScore",
    "motion": "longvid.metrics.motion:MotionAmount",
    "stagnation": "longvid.metrics.motion:Stagnation",
    "flow_std": "longvid.metrics.motion:FlowDeviation",
    "seams": "longvid.metrics.seams:Seams",
    "flicker": "longvid.metrics.flicker:Flicker",
    "loops": "longvid.metrics.loops:Loops",
    "brightness_drift": "longvid.metrics.drift:BrightnessDrift",
    "contrast_drift": "longvid.metrics.drift:ContrastDrift",
    "saturation_drift": "longvid.metrics.drift:SaturationDrift",
    "sharpness_drift": "longvid.metrics.drift:SharpnessDrift",
    "color_drift": "longvid.metrics.drift:ColorDrift",
    "scuts": "longvid.metrics.scene_cuts:SceneCuts",
    "clip_score": "longvid.metrics.clip_scores:CLIPTextScore",
    "clip_consistency": "longvid.metrics.clip_scores:CLIPFrameConsistency",
    "aesthetic": "longvid.metrics.aesthetic:AestheticScore",
    "lpips": "longvid.metrics.lpips:LPIPSToFirst",
    "lpips_previous": "longvid.metrics.lpips:LPIPSToPrevious",
    "re_id": "longvid.metrics.reidentification:ReIdentification",
    "fvd": "longvid.metrics.fvd:FVD",
    "is": "longvid.metrics.inception_score:InceptionScore",
}
"""Name -> a callable that makes the metric, or the place of its class as ``"module:Class"``, imported on first use."""


def check_frames(frames: Tensor, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the height and width of `frames`.

    Args:
        frames: Floats in [0, 1], ``(F, 3, H, W)``, F at least 1.
        size: Height and width of the frames before; None if there were none.

    Raises:
        ValueError: if they are no such tensor, leave [0, 1], hold NaN, or differ from `size`.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape or not frames.is_floating_point():
        raise ValueError(
            f"expected floating-point frames (F, 3, H, W) in [0, 1]; got {frames.dtype} of shape {tuple(frames.shape)}"
        )
    low, high = (float(end) for end in frames.aminmax())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        raise ValueError(f"expected frames in [0, 1]; got values from {low:.4g} to {high:.4g}")
    height, width = frames.shape[-2:]
    if size not in (None, (height, width)):
        raise ValueError(f"the frames of a video must have one size, {size} so far; got {(height, width)}")
    return height, width


def check_name(name: str) -> None:
    """Raise ValueError, naming the nearest, if no metric is called `name`."""
    if name not in METRICS:
        found = difflib.get_close_matches(name, list(METRICS), n=1, cutoff=0.5)
        hint = f"; did you mean {found[0]!r}?" if found else f"; known: {', '.join(METRICS)}"
        raise ValueError(f"there is no metric {name!r}{hint}")


def metric_class(name: str) -> Callable[..., Metric]:
    """The callable that makes the metric `name`; its module is imported now.

    Raises:
        ValueError: if no metric has that name; the message names the nearest.
    """
    check_name(name)
    home = METRICS[name]
    if callable(home):
        return home
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def make_metric(name: str, **options: Any) -> Metric:
    """Make the metric `name`.

    Args:
        name: A name in :data:`METRICS`.
        **options: Keyword arguments of its class.

    Raises:
        ValueError: if no metric has that name, or it does not take the options.
        MissingWeights: if it needs a file or a package that is not there.
    """
    make = metric_class(name)
    unknown = set(options) - set(accepted_options(name, options))
    if unknown:
        known = ", ".join(inspect.signature(make).parameters) or "none"
        raise ValueError(f"metric {name!r} takes the options {known}; got {', '.join(sorted(unknown))}")
    return make(**options)


def accepted_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that the metric `name` takes."""
    parameters = inspect.signature(metric_class(name)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(options)
    names = {parameter.name for parameter in parameters}
    return {key: value for key, value in options.items() if key in names}
