"""Reports of videos as a table for the terminal, and the comparison that table and page share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from longvid.metrics.base import MetricResult
from longvid.metrics.curves import ends
from longvid.metrics.evaluate import VideoReport

BETTER = {True: "higher", False: "lower", None: ""}


def format_table(reports: Sequence[VideoReport]) -> str:
    """All results as text: one video with the start and the end of each curve, several videos side by side.

    The best of several values is marked with a star.

    Raises:
        ValueError: if there are no reports.
    """
    if not reports:
        raise ValueError("expected at least one report; got none")
    names, labels = metric_names(reports), video_labels(reports)
    if len(reports) == 1:
        rows = [("metric", "value", "start", "end", "better")]
        rows += [_row(reports[0].results[name]) for name in names if name in reports[0].results]
    else:
        rows = [("metric", *labels, "better")]
        for name in names:
            results = [report.results.get(name) for report in reports]
            best = best_of(results)
            cells = [number(result) + (" *" if index in best else "") for index, result in enumerate(results)]
            rows.append((name, *cells, BETTER[next((r.higher_is_better for r in results if r), None)]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    head = [
        f"{label}: {report.num_frames} frames, {_read(report)}" for label, report in zip(labels, reports, strict=True)
    ]
    tail = [f"not measured: {name}: {reason}" for name, reason in not_measured(reports).items()]
    return "\n".join([*head, "", *lines, *[""][: len(tail)], *tail])


def metric_names(reports: Sequence[VideoReport]) -> list[str]:
    """Metrics with a result for at least one video, in order."""
    return list(dict.fromkeys(name for report in reports for name in report.results))


def not_measured(reports: Sequence[VideoReport]) -> dict[str, str]:
    """Why metrics have no result or no value, by name; with several videos, each reason once and after its video."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for label, report in zip(video_labels(reports), reports, strict=True):
        undefined = {name: result.note for name, result in report.results.items() if result.value is None}
        for name, reason in {**report.not_measured, **undefined}.items():
            reasons.setdefault(name, {}).setdefault(reason, []).append(label)
    return {
        name: "; ".join(
            reason if len(labels) == len(reports) else f"{', '.join(labels)}: {reason}"
            for reason, labels in found.items()
        )
        for name, found in reasons.items()
    }


def video_labels(reports: Sequence[VideoReport]) -> list[str]:
    """A short name for every video: that of its file or folder, or the whole path where two are the same."""
    names = [Path(report.reading.path).resolve().name for report in reports]
    if len(set(names)) == len(names):
        return names
    return [report.reading.path for report in reports]


def best_of(results: Sequence[MetricResult | None]) -> set[int]:
    """Places of the best values, if there are at least two that differ and one direction is better."""
    values = {place: r.value for place, r in enumerate(results) if r is not None and r.value is not None}
    directions = {r.higher_is_better for r in results if r is not None}
    if len(set(values.values())) < 2 or directions not in ({True}, {False}):
        return set()
    best = max(values.values()) if directions == {True} else min(values.values())
    return {place for place, value in values.items() if value == best}


def number(result: MetricResult | None) -> str:
    """A value with its unit; a dash where there is none."""
    if result is None or result.value is None:
        return "-"
    return f"{short(result.value)} {result.unit}".rstrip()


def short(value: float) -> str:
    """Four significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 3 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3g}"


def _row(result: MetricResult) -> tuple[str, str, str, str, str]:
    curve = [value for value in result.curve if math.isfinite(value)]
    start, end = map(short, ends(curve)) if len(curve) > 1 else ("", "")
    return result.name, number(result), start, end, BETTER[result.higher_is_better]


def _read(report: VideoReport) -> str:
    reading = report.reading
    rate = f" at {reading.fps:g} fps" if reading.fps else ""
    return f"{reading.width} x {reading.height}{rate}, {reading.in_words()}"
