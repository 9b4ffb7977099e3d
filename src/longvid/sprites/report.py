"""Figures with their interval, bar, chance level and the judge's own ceiling, as plain JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Z95 = 1.959963984540054
ENOUGH = 200
"""Prompts that the bars ask for."""


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    r"""95 % Wilson score interval of a share.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1; got successes={successes}, n={n}")
    p, z2 = successes / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def share_figure(hits: Sequence[bool], *, bar: float | None = None, chance: float | None = None) -> dict[str, Any]:
    """An accuracy: `{"kind": "share", "value", "n", "interval", "bar", "met", "chance"}`; the bar is `>=`."""
    n = len(hits)
    if not n:
        return {"kind": "share", "value": None, "n": 0, "interval": None, "bar": bar, "met": None, "chance": chance}
    value = sum(map(bool, hits)) / n
    met = None if bar is None else value >= bar
    interval = list(wilson_interval(sum(map(bool, hits)), n))
    return {"kind": "share", "value": value, "n": n, "interval": interval, "bar": bar, "met": met, "chance": chance}


def mean_figure(
    values: Sequence[float],
    *,
    bar: float | None = None,
    chance: float | None = None,
    at_most: bool = True,
    unit: str = "",
) -> dict[str, Any]:
    """A mean with its normal 95 % interval; the bar is an upper one if `at_most`.

    Values that are not finite are left out and counted in `num_missing`; with any missing, no bar is met.
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    n = len(finite)
    figure: dict[str, Any] = {"kind": "mean", "unit": unit, "at_most": at_most, "bar": bar, "chance": chance}
    figure |= {"n": n, "num_missing": len(values) - n, "value": None, "interval": None, "met": None}
    if not n:
        return figure
    mean = sum(finite) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in finite) / max(n - 1, 1))
    half = Z95 * spread / math.sqrt(n)
    figure |= {"value": mean, "interval": [mean - half, mean + half]}
    if bar is not None:
        figure["met"] = (mean <= bar if at_most else mean >= bar) and n == len(values)
    return figure


def format_report(report: dict[str, Any]) -> str:
    """A table of every figure: value, n, 95 % interval, bar, chance, ceilings."""
    head = ("figure", "value", "n", "95 % interval", "bar", "", "chance", "judge on drawn", "judge on VAE")
    rows: list[tuple[str, ...]] = [head]
    for name, figure in report["figures"].items():
        mark = {True: "met", False: "MISSED", None: ""}[figure.get("met")]
        bar, sign = figure.get("bar"), "<=" if figure.get("at_most") else ">="
        low_high = figure.get("interval")
        rows.append((
            name,
            _show(figure, figure["value"]),
            str(figure["n"]),
            "-" if low_high is None else " .. ".join(_show(figure, v) for v in low_high),
            "" if bar is None else f"{sign} {_show(figure, bar)}",
            mark,
            _show(figure, figure.get("chance")),
            _show(figure, figure.get("ceiling_drawn")),
            _show(figure, figure.get("ceiling_vae")),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    barred = [figure for figure in report["figures"].values() if figure.get("met") is not None]
    title = f"{report['title']}: {sum(f['met'] for f in barred)} of {len(barred)} bars met"
    details = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    few = report["settings"].get("prompts", ENOUGH) < ENOUGH
    note = [f"Bars are set for at least {ENOUGH} prompts; fewer make a quick look, not a measurement."] if few else []
    return "\n".join([title, details, *note, "", *lines])


def _show(figure: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "-"
    if figure["kind"] == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.2f} {figure['unit']}".rstrip()
