"""One pass over a video, all metrics at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvid.metrics.base import METRICS, Metric, MetricResult, accepted_options, check_name, make_metric
from longvid.metrics.curves import start_end_contrast
from longvid.metrics.flow import PAPER_SIZE, Flow, SharedFlow, make_flow
from longvid.metrics.flow_metric import FlowMetric
from longvid.metrics.pictures import FrameStrip, LargestSteps, XTSlice
from longvid.metrics.reading import Reading, open_video

FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class Pictures:
    """What is drawn of a video.

    Attributes:
        slice: X-T slice, uint8 ``(W, T, 3)``.
        strip: A few frames, each with its number.
        steps: The largest steps: change in grey levels, number of the frame behind, the frames before and behind.
        at_borders: Whether only known chunk borders were looked at for `steps`.
    """

    slice: np.ndarray
    strip: list[tuple[int, np.ndarray]]
    steps: list[tuple[float, int, np.ndarray, np.ndarray]]
    at_borders: bool


@dataclass(frozen=True)
class VideoReport:
    """All about one video.

    Attributes:
        reading: What was read.
        num_frames: Number of frames.
        results: One for each metric that could be computed, by name.
        not_measured: Why each of the others could not, by name.
        about: What each metric means, by name.
        pictures: What is drawn of it.
        borders: Known chunk borders within the video; None if nobody said where they are.
        prompt: What the metrics that compare video and text were told.
    """

    reading: Reading
    num_frames: int
    results: dict[str, MetricResult]
    not_measured: dict[str, str]
    about: dict[str, str]
    pictures: Pictures
    borders: tuple[int, ...] | None = None
    prompt: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, in the types of JSON: numbers that are not finite become None."""
        reading = vars(self.reading) | {"num_frames": self.num_frames, "in_words": self.reading.in_words()}
        results = {
            name: _plain(vars(result)) | {"start_end_contrast": contrast_of(result)}
            for name, result in self.results.items()
        }
        borders = None if self.borders is None else list(self.borders)
        told = {"prompt": self.prompt, "borders": borders}
        return {"read": reading, **told, "results": results, "not_measured": dict(self.not_measured)}


def evaluate_video(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    metrics: Sequence[str] | None = None,
    prompt: str | None = None,
    borders: Iterable[int] | None = None,
    flow: Flow | None = None,
    flow_size: tuple[int, int] | None = PAPER_SIZE,
    device: str = "cpu",
    options: dict[str, dict[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoReport:
    """Read a video once and compute metrics, in memory that does not grow with its length beyond scalars per frame.

    A metric that cannot be computed here, for lack of weights, a package, a prompt or borders, is listed with the reason
    and does not stop the others.

    Args:
        path: A video file, a folder of PNGs, or files that follow one another, such as `Run.readable()` of a run folder.
        name: What the video is called in tables and pages; by default its path.
        metrics: Names in :data:`longvid.metrics.METRICS`; by default all.
        prompt: For the metrics that compare video and text.
        borders: Frames at which a new chunk begins, for the seam score.
        flow: The optical flow of all metrics that use one; by default :func:`longvid.metrics.flow.make_flow`.
        flow_size: Height and width that frames are resized to for the flow; None leaves them as they are.
        device: Where networks run.
        options: More keyword arguments, by name of the metric.
        progress: Is called with the number of frames read, after each few.

    Raises:
        ValueError: for an unknown metric, options of a metric that is not measured, or a video that cannot be read.
    """
    names = check_metrics(metrics)
    unmeasured = sorted(set(options or {}) - set(names))
    if unmeasured:
        raise ValueError(f"there are options for metrics that are not measured: {', '.join(unmeasured)}")
    borders = None if borders is None else sorted(set(borders))
    reader, reading = open_video(path, name)
    offered = {"prompt": prompt, "borders": borders, "device": device}
    offered = {key: value for key, value in offered.items() if value is not None}
    measured, not_measured = _make_metrics(names, offered, _LazyFlow(flow, device), flow_size, options or {})
    drawn = XTSlice(), FrameStrip(), LargestSteps(borders=borders or None)
    num_frames = 0
    with torch.no_grad():
        for frames in _in_pieces(reader):
            for part in drawn:
                part.update(frames)
            _update(measured, not_measured, frames)
            num_frames += len(frames)
            if progress is not None:
                progress(num_frames)
    results = {}
    for name, metric in measured.items():
        try:
            results[name] = metric.compute()
        except ValueError as error:
            not_measured[name] = str(error)
    about = {name: type(metric).about for name, metric in measured.items()}
    known = None if borders is None else tuple(border for border in borders if border < num_frames)
    return VideoReport(
        reading=reading,
        num_frames=num_frames,
        results={name: results[name] for name in names if name in results},
        not_measured=not_measured,
        about=about,
        pictures=Pictures(drawn[0].compute(), drawn[1].compute(), drawn[2].compute(), bool(borders)),
        borders=known,
        prompt=prompt,
    )


def contrast_of(result: MetricResult) -> float | None:
    """The start-end contrast of a result's curve; None where the curve has fewer than two finite numbers."""
    curve = [value for value in result.curve if math.isfinite(value)]
    return start_end_contrast(curve) if len(curve) > 1 else None


def check_metrics(metrics: Sequence[str] | None) -> list[str]:
    """The names, each once; all that are known for None.

    Raises:
        ValueError: if there is none, or one is unknown; the message names the nearest.
    """
    names = list(METRICS if metrics is None else dict.fromkeys(metrics))
    if not names:
        raise ValueError("expected at least one metric; got none")
    for name in names:
        check_name(name)
    return names


class _LazyFlow:
    """One flow for all metrics, made when the first one asks; if that fails, it fails for all of them."""

    def __init__(self, flow: Flow | None, device: str) -> None:
        self._flow = None if flow is None else SharedFlow(flow)
        self._device = device
        self._error: ValueError | None = None

    def get(self) -> SharedFlow:
        """The flow."""
        if self._error is not None:
            raise self._error
        if self._flow is None:
            try:
                self._flow = SharedFlow(make_flow(device=self._device))
            except ValueError as error:
                self._error = error
                raise
        return self._flow


def _make_metrics(
    names: Sequence[str],
    offered: dict[str, Any],
    flow: _LazyFlow,
    flow_size: tuple[int, int] | None,
    options: dict[str, dict[str, Any]],
) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics that can be made, and why the others cannot."""
    measured: dict[str, Metric] = {}
    not_measured: dict[str, str] = {}
    for name in names:
        try:
            own = accepted_options(name, offered) | options.get(name, {})
            own = accepted_options(name, {"flow_size": flow_size}) | own
            if accepted_options(name, {"flow": None}) and "flow" not in own:
                own["flow"] = flow.get()
            measured[name] = make_metric(name, **own)
        except ValueError as error:
            not_measured[name] = str(error)
        except ImportError as error:
            not_measured[name] = f"a package is missing: {error}"
    return measured, not_measured


def _update(measured: dict[str, Metric], not_measured: dict[str, str], frames: Tensor) -> None:
    """Show frames to all metrics; those with a flow see them one by one, so that they share each flow."""
    with_flow = [name for name, metric in measured.items() if isinstance(metric, FlowMetric)]
    others = [name for name in measured if name not in with_flow]
    turns = [(name, frame) for frame in frames.split(1) for name in with_flow] + [(name, frames) for name in others]
    for name, piece in turns:
        if name in not_measured:
            continue
        try:
            measured[name].update(piece)
        except ValueError as error:
            del measured[name]
            not_measured[name] = str(error)


def _in_pieces(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    iterator = iter(frames)
    while piece := list(islice(iterator, FRAMES_AT_ONCE)):
        yield torch.stack(piece)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, tuple):
        return [_plain_value(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
