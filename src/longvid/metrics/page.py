"""Reports of videos as one HTML page that needs nothing else: no script, no font, no server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from longvid.metrics.base import MetricResult
from longvid.metrics.chart import Curve, line_chart
from longvid.metrics.evaluate import VideoReport
from longvid.metrics.pictures import png_uri
from longvid.metrics.table import BETTER, best_of, metric_names, not_measured, number, short, video_labels

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5c6570; --paper: #fff; --panel: #f4f6f8; --rule: #d9dee4;
  --best: #0b7a4b; --k0: #1f6fc4; --k1: #c9471d; --k2: #2a8a4a; --k3: #8a4fc0; --k4: #a67c00; --k5: #c03a7a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa5b1; --paper: #14171b; --panel: #1d2227;
  --rule: #343b43; --best: #5fd39b; --k0: #6cb0f5; --k1: #ff9166; --k2: #71d08f; --k3: #c49bf0; --k4: #e3bd4e;
  --k5: #f58bbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; } p { margin: .3rem 0; }
code { font-family: ui-monospace, monospace; font-size: .92em; } a { color: inherit; }
.soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.n { white-space: nowrap; } .best { color: var(--best); font-weight: 600; }
section { background: var(--panel); border-radius: .5rem; padding: .2rem 1rem 1rem; margin: 1rem 0; }
section h3 { margin-top: .8rem; }
.value { font-size: 1.15rem; font-weight: 600; margin-right: 1.2rem; }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .35em; }
svg.chart { width: 100%; height: auto; margin-top: .5rem; }
.grid { stroke: var(--rule); } .tick { fill: var(--soft); font-size: 11px; }
.border { stroke: var(--soft); stroke-dasharray: 2 3; opacity: .6; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
figure { margin: .6rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
.slice { width: 100%; max-height: 16rem; min-height: 6rem; image-rendering: pixelated; display: block;
  border-radius: .25rem; }
.strip { display: flex; flex-wrap: wrap; gap: .4rem; }
.strip img { width: 6.5rem; display: block; border-radius: .25rem; }
.pair { display: inline-flex; gap: 2px; margin: .3rem 1rem .3rem 0; }
.pair img { width: 9rem; display: block; border-radius: .25rem; }
""" + "".join(f".k{k}.line {{ stroke: var(--k{k}); }} .k{k}.dot {{ fill: var(--k{k}); }}\n" for k in range(6))
_COLORS = 6


def html_page(reports: Sequence[VideoReport]) -> str:
    """The page: what was read, a comparison, pictures of each video, and every metric with its curve in plain words.

    Raises:
        ValueError: if there are no reports, or more than the colours of the curves can tell apart (6).
    """
    if not 1 <= len(reports) <= _COLORS:
        raise ValueError(f"a page compares 1 to {_COLORS} videos; got {len(reports)}")
    labels = video_labels(reports)
    title = labels[0] if len(reports) == 1 else f"{len(reports)} videos compared"
    body = [f"<h1>{escape(title)}</h1>"]
    body += [_prompts(reports, labels), _what_was_read(reports, labels), _summary(reports, labels)]
    for index, report in enumerate(reports):
        body.append(_pictures(report, labels[index], index, alone=len(reports) == 1))
    body.append("<h2>Each number and its course</h2>")
    body += [_metric(name, reports, labels) for name in metric_names(reports)]
    missing = not_measured(reports)
    if missing:
        items = "".join(f"<li><code>{escape(name)}</code>: {escape(reason)}</li>" for name, reason in missing.items())
        body.append(f"<h2>Not measured</h2><ul>{items}</ul>")
    body.append('<p class="soft">Made by <code>longvid evaluate</code>.</p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _prompts(reports: Sequence[VideoReport], labels: Sequence[str]) -> str:
    """What the videos should show: one line where all that say it say the same."""
    told = {label: report.prompt for label, report in zip(labels, reports, strict=True) if report.prompt}
    if len(told) == len(reports) and len(set(told.values())) == 1:
        told = {"prompt": next(iter(told.values()))}
    return "".join(f'<p class="soft">{escape(label)}: {escape(prompt)}</p>' for label, prompt in told.items())


def _what_was_read(reports: Sequence[VideoReport], labels: Sequence[str]) -> str:
    rows = []
    for index, (report, label) in enumerate(zip(reports, labels, strict=True)):
        reading = report.reading
        rate = f", {reading.fps:g} fps" if reading.fps else ""
        size = f"{report.num_frames} frames, {reading.width} x {reading.height}{rate}"
        rows.append(
            f"<tr><td>{_key(index)}{escape(label)}</td><td>{size}</td><td>{escape(reading.in_words())}</td></tr>"
        )
    return f'<h2>What was read</h2><div class="scroll"><table>{"".join(rows)}</table></div>'


def _summary(reports: Sequence[VideoReport], labels: Sequence[str]) -> str:
    heads = "".join(f"<th>{_key(index)}{escape(label)}</th>" for index, label in enumerate(labels))
    rows = []
    for name in metric_names(reports):
        results = [report.results.get(name) for report in reports]
        best = best_of(results)
        cells = "".join(
            f'<td class="n{" best" if index in best else ""}">{escape(number(result))}</td>'
            for index, result in enumerate(results)
        )
        better = BETTER[next((result.higher_is_better for result in results if result), None)]
        rows.append(
            f'<tr><td><a href="#{escape(name)}">{escape(name)}</a></td>{cells}<td class="soft">{better}</td></tr>'
        )
    table = f"<tr><th>metric</th>{heads}<th>better</th></tr>{''.join(rows)}"
    return f'<h2>In short</h2><div class="scroll"><table>{table}</table></div>'


def _pictures(report: VideoReport, label: str, index: int, *, alone: bool) -> str:
    pictures = report.pictures
    heading = "<h2>What it looks like</h2>" if alone else f"<h2>{_key(index)}{escape(label)}</h2>"
    strip = "".join(
        f'<figure><img src="{png_uri(pixels)}" alt="frame {frame}"><figcaption>{frame}</figcaption></figure>'
        for frame, pixels in pictures.strip
    )
    words = (
        "X-T slice: the middle row of pixels of every frame, time running to the right. Even motion draws straight slanted "
        "lines, a standstill level ones; a cut or a visible seam is an upright edge."
    )
    parts = [
        heading,
        f'<div class="strip">{strip}</div>',
        f'<figure><img class="slice" src="{png_uri(pictures.slice, side=1024)}" alt="X-T slice">'
        f"<figcaption>{words}</figcaption></figure>",
    ]
    if pictures.steps:
        place = "chunk border" if pictures.at_borders else "step"
        what = "The worst seams" if pictures.at_borders else "The largest steps from one frame to the next"
        pairs = "".join(
            f'<figure class="pair"><div><div class="pair"><img src="{png_uri(before)}" alt="frame {frame - 1}">'
            f'<img src="{png_uri(after)}" alt="frame {frame}"></div>'
            f"<figcaption>{place} {frame - 1} → {frame}: {short(change)} grey levels</figcaption></div></figure>"
            for change, frame, before, after in pictures.steps
        )
        parts.append(f"<h3>{what}</h3>{pairs}")
    return "".join(parts)


def _metric(name: str, reports: Sequence[VideoReport], labels: Sequence[str]) -> str:
    results = [report.results.get(name) for report in reports]
    about = next((report.about[name] for report in reports if report.about.get(name)), "")
    better = BETTER[next((result.higher_is_better for result in results if result), None)]
    values = "".join(
        f'<span class="value">{_key(index) if len(results) > 1 else ""}{escape(number(result))}</span>'
        for index, result in enumerate(results)
    )
    side = f'<span class="soft">{better} is better</span>' if better else ""
    parts = [f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{values}{side}</p><p>{escape(about)}</p>']
    curves: list[Curve] = [
        (label, result.curve_start, result.curve) if result else (label, 0, ())
        for label, result in zip(labels, results, strict=True)
    ]
    if any(math.isfinite(value) for _, _, curve in curves for value in curve):
        borders = reports[0].borders or () if len({report.borders for report in reports}) == 1 else ()
        parts.append(line_chart(curves, title=f"{name} over time", borders=borders))
    notes = dict.fromkeys(result.note for result in results if result and result.note)
    parts += [f'<p class="soft">{escape(note)}</p>' for note in notes]
    return "".join([*parts, _details(results, labels), "</section>"])


def _details(results: Sequence[MetricResult | None], labels: Sequence[str]) -> str:
    names = list(dict.fromkeys(key for result in results if result for key in result.details))
    if not names:
        return ""
    heads = "".join(f"<th>{_key(index)}{escape(label)}</th>" for index, label in enumerate(labels))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(_cell(result, name) for result in results)}</tr>" for name in names
    )
    head = f"<tr><th></th>{heads}</tr>" if len(results) > 1 else ""
    return f'<details><summary>more</summary><div class="scroll"><table>{head}{rows}</table></div></details>'


def _cell(result: MetricResult | None, name: str) -> str:
    value = result.details.get(name) if result else None
    text = "-" if value is None else value if isinstance(value, str) else short(value)
    return f'<td class="n">{escape(text)}</td>'


def _key(index: int) -> str:
    return f'<span class="key" style="background: var(--k{index})"></span>'
