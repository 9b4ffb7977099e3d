"""Curves over time as inline SVG: it takes its colours from the page that holds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 760, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 34
_BUCKETS = 380
_MAX_BORDERS = 120

Curve = tuple[str, int, Sequence[float]]
"""Label, number of the first frame, one number per frame."""


def line_chart(curves: Sequence[Curve], *, title: str, borders: Sequence[int] = ()) -> str:
    """Draw curves over a common axis of frames; numbers that are not finite leave a gap.

    Curve k has the class ``k<k>``, so that the page colours it. Of a long curve, the smallest and largest number of every
    bucket are drawn, so that no peak is lost.

    Args:
        curves: What is drawn.
        title: What the chart shows, for those who do not see it.
        borders: Frames that get a vertical mark; none are drawn if they are too many to tell apart.

    Raises:
        ValueError: if no curve has a finite number.
    """
    values = [value for _, _, curve in curves for value in curve if math.isfinite(value)]
    if not values:
        raise ValueError("a chart needs at least one finite number; got none")
    first = min(start for _, start, curve in curves if len(curve))
    last = max(max(start + len(curve) - 1 for _, start, curve in curves if len(curve)), first + 1)
    ticks = nice_ticks(min(*values, *values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))

    def x(frame: float) -> float:
        return _LEFT + (frame - first) / (last - first) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart"><title>{escape(title)}</title>']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    frames = nice_ticks(first, last, number=8)
    for frame in (frame for frame in frames if first <= frame <= last and frame == int(frame)):
        place = f'x="{x(frame):.1f}" y="{HEIGHT - _BOTTOM + 15}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{frame:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">frame</text>')
    if len(borders) <= _MAX_BORDERS:
        top, bottom = _TOP, HEIGHT - _BOTTOM
        parts += [
            f'<line class="border" x1="{x(border):.1f}" x2="{x(border):.1f}" y1="{top}" y2="{bottom}"/>'
            for border in borders
            if first <= border <= last
        ]
    for index, (label, start, curve) in enumerate(curves):
        for run in _runs(start, curve):
            points = [(x(frame), y(value)) for frame, value in run]
            parts.append(_line(points, f"k{index}", label))
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float, *, number: int = 4) -> list[float]:
    """Round numbers, about `number` of them, the first at or below `low` and the last at or above `high`."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        margin = 0.5 * max(abs(low), 1.0)
        low, high = low - margin, high + margin
        low = max(low, 0.0) if low < 0 <= high - margin else low
    rough = (high - low) / number
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(start, stop + 1)]


def _line(points: list[tuple[float, float]], css: str, label: str) -> str:
    if len(points) == 1:
        (x, y), *_ = points
        return f'<circle class="{css} dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(label)}</title></circle>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{css} line" points="{path}"><title>{escape(label)}</title></polyline>'


def _runs(start: int, curve: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Stretches of finite numbers as (frame, number), thinned to the extremes of equal buckets."""
    size = max(1, math.ceil(len(curve) / _BUCKETS))
    runs: list[list[tuple[float, float]]] = [[]]
    for first in range(0, len(curve), size):
        bucket = [(start + place, curve[place]) for place in range(first, min(first + size, len(curve)))]
        known = [point for point in bucket if math.isfinite(point[1])]
        if known:
            extremes = {min(known, key=lambda point: point[1]), max(known, key=lambda point: point[1])}
            runs[-1] += sorted(extremes)
        if len(known) < len(bucket):
            runs.append([])
    return [run for run in runs if run]
