"""The figure of an experiment, as SVG (matplotlib)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longvid.reproduce.experiment import Experiment, Measured, Variant
from longvid.reproduce.statistics import Interval, mean_interval

COLUMNS = 3
COLORS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3")
Rows = dict[str, dict[str, Interval]]


def check_figures() -> None:
    """Say what is missing before any work is done.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("the figures need matplotlib: pip install 'longvid[reproduce]'")


def draw_figure(experiment: Experiment, rows: Rows, measured: dict[tuple[str, int, int], Measured], path: Path) -> None:
    """A sweep as curves over its axis, curves of single videos as their mean, anything else as rows of points."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": experiment.name, "svg.fonttype": "none", "font.size": 9}):
        figure = _curves(experiment, measured) if experiment.curves else _measures(experiment, rows)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")


def _measures(experiment: Experiment, rows: Rows) -> Any:
    from matplotlib.figure import Figure

    measures = [measure for measure in experiment.measures if any(measure.name in row for row in rows.values())]
    lines = -(-len(measures) // COLUMNS)
    figure = Figure(figsize=(10.5, 2.5 * lines), layout="constrained")
    for axes, measure in zip(figure.subplots(lines, COLUMNS, squeeze=False).flat, measures, strict=False):
        (_sweep if experiment.axis else _points)(
            axes, experiment, rows, measure.name, 100 if measure.unit == "%" else 1
        )
        better = {"higher": " ↑", "lower": " ↓", None: ""}[measure.better]
        axes.set_title(f"{measure.label}{better}" + (f" ({measure.unit})" if measure.unit else ""), fontsize=9)
        axes.grid(alpha=0.25)
    for axes in figure.axes[len(measures) :]:
        axes.set_axis_off()
    if experiment.axis:
        figure.supxlabel(experiment.axis, fontsize=9)
    return figure


def _sweep(axes: Any, experiment: Experiment, rows: Rows, name: str, scale: float) -> None:
    swept = [variant for variant in experiment.variants if variant.x is not None and name in rows[variant.name]]
    labels = list(dict.fromkeys(variant.series for variant in swept))
    for color, label in zip(COLORS, labels, strict=False):
        series = [variant for variant in swept if variant.series == label]
        intervals = [rows[variant.name][name] for variant in series]
        places = [float(variant.x or 0) for variant in series]
        axes.errorbar(places, [scale * one.mean for one in intervals], yerr=_bars(intervals, scale), marker="o", ms=4,
                      capsize=3, color=color, label=label)  # fmt: skip
    if len(labels) > 1:
        axes.legend(fontsize=7, frameon=False)
    for variant in experiment.variants:
        if variant.x is None and name in rows[variant.name]:
            axes.axhline(scale * rows[variant.name][name].mean, color="0.45", ls="--", lw=1)


def _points(axes: Any, experiment: Experiment, rows: Rows, name: str, scale: float) -> None:
    shown: Sequence[Variant] = [variant for variant in experiment.variants if name in rows[variant.name]]
    for place, variant in enumerate(reversed(shown)):
        one = rows[variant.name][name]
        color = "0.45" if variant.reference else COLORS[0]
        axes.errorbar([scale * one.mean], [place], xerr=_bars([one], scale), marker="o", ms=4, capsize=3, color=color)
    axes.set_yticks(range(len(shown)), [variant.name for variant in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)


def _bars(intervals: Sequence[Interval], scale: float) -> list[list[float]]:
    low = [0.0 if one.low is None else scale * max(one.mean - one.low, 0.0) for one in intervals]
    high = [0.0 if one.high is None else scale * max(one.high - one.mean, 0.0) for one in intervals]
    return [low, high]


def _curves(experiment: Experiment, measured: dict[tuple[str, int, int], Measured]) -> Any:
    """A panel per variant: the mean of every curve over prompts and seeds, with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(experiment.variants), 3.2), layout="constrained")
    panels = figure.subplots(1, len(experiment.variants), squeeze=False, sharey=True).flat
    for axes, variant in zip(panels, experiment.variants, strict=True):
        for color, (name, label) in zip(COLORS, experiment.curves.items(), strict=False):
            curves = {key[1:]: one.curves[name] for key, one in measured.items() if key[0] == variant.name}
            length = min((len(curve) for curve in curves.values()), default=0)
            places = range(1, length + 1)
            row = [mean_interval({key: curve[i] for key, curve in curves.items()}) for i in range(length)]
            axes.plot(places, [one.mean for one in row], color=color, marker="o", ms=3, label=label)
            if row and row[0].low is not None:
                axes.fill_between(places, [one.low for one in row], [one.high for one in row], color=color, alpha=0.2)
        axes.set_title(variant.label, fontsize=9)
        axes.set_xlabel(experiment.curve_axis)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    return figure
