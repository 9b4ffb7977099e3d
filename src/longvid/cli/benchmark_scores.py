"""The scores of a benchmark: measured once per video and kept beside it, then a mean with its interval over all."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from longvid.cli.benchmark_videos import PlannedVideo
from longvid.cli.parser import say
from longvid.cli.record import Record, plain

BETTER = {True: "higher", False: "lower", None: ""}


@dataclass
class Scoring:
    """Which metrics, and with what.

    Attributes:
        metrics: Names of the metrics of single videos.
        set_metrics: Names of the metrics of all videos together.
        options: Further keyword arguments, by metric.
        device: Name of the device.
        quiet: Whether nothing is said on the way.
        not_measured: Why metrics have no number, by name.
    """

    metrics: Sequence[str]
    set_metrics: Sequence[str]
    options: dict[str, dict[str, Any]]
    device: str
    quiet: bool = False
    not_measured: dict[str, str] = field(default_factory=dict)

    def score_each(self, videos: Sequence[PlannedVideo]) -> list[dict[str, Any]]:
        """The records of the videos, with a score of every metric that can be measured; what is there is not redone."""
        flow = None
        records = []
        for number, video in enumerate(videos):
            record = Record(video.record, read_video_record(video))
            scores = record.values["scores"]
            due = [name for name in self.metrics if scores.get(name, {}).get("options") != self._options(name)]
            if due:
                say(f"measuring {number + 1}/{len(videos)} {video.name}", quiet=self.quiet)
                flow = flow or _make_flow(due, self.device)
                self._measure(video, record, due, flow)
            records.append(record.values)
        return records

    def score_together(self, videos: Sequence[PlannedVideo]) -> dict[str, dict[str, Any]]:
        """The results of the metrics that see all videos as one set, by name; every video is read again."""
        from longvid.metrics.base import accepted_options, make_metric
        from longvid.video.io import read_video

        results = {}
        for name in self.set_metrics:
            say(f"measuring {name} over {len(videos)} videos", quiet=self.quiet)
            offered = accepted_options(name, {"device": self.device})
            metric: Any = make_metric(name, **{**offered, **self.options.get(name, {})})
            for video in videos:
                for frame in read_video(video.path):
                    metric.update(frame[None])
                metric.end_video()
            results[name] = plain(vars(metric.compute()))
        return results

    def _measure(self, video: PlannedVideo, record: Record, due: list[str], flow: Any) -> None:
        from longvid.metrics.evaluate import evaluate_video

        report = evaluate_video(
            video.path,
            metrics=due,
            prompt=video.prompt,
            borders=record.values.get("borders"),
            flow=flow,
            device=self.device,
            options={name: value for name, value in self.options.items() if name in due},
        )
        self.not_measured |= report.not_measured
        for name, result in report.results.items():
            kept = {
                key: value for key, value in plain(vars(result)).items() if key not in ("name", "curve", "curve_start")
            }
            record.values["scores"][name] = kept | {"options": self._options(name)}
        record.save()

    def _options(self, name: str) -> dict[str, Any]:
        return plain(self.options.get(name, {}))


def summarise(
    records: Sequence[dict[str, Any]], together: dict[str, dict[str, Any]], metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Mean, half-width of its 95 % interval and number of videos of each metric; undefined scores do not count.

    The interval is 1.96 standard errors of the mean; it is None for fewer than two videos and for metrics of the set.
    """
    rows = {}
    for name in metrics:
        scores = [record["scores"][name] for record in records if name in record["scores"]]
        values = [score["value"] for score in scores if score["value"] is not None and math.isfinite(score["value"])]
        if scores:
            spread = 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            rows[name] = {
                "value": fmean(values) if values else None,
                "interval": spread,
                "videos": len(values),
                "unit": scores[0]["unit"],
                "higher_is_better": scores[0]["higher_is_better"],
                "notes": sorted({score["note"] for score in scores if score["note"]}),
            }
    for name, result in together.items():
        kept = {key: result[key] for key in ("value", "unit", "higher_is_better", "details")}
        rows[name] = {**kept, "interval": None, "videos": len(records), "notes": [result["note"]]}
    return rows


def format_summary(rows: dict[str, dict[str, Any]], not_measured: dict[str, str]) -> str:
    """The summary as a table for the terminal."""
    cells = [("metric", "mean", "95 %", "videos", "better")]
    for name, row in rows.items():
        value = "undefined" if row["value"] is None else f"{row['value']:.4g} {row['unit']}".strip()
        spread = "" if row["interval"] is None else f"± {row['interval']:.2g}"
        cells.append((name, value, spread, str(row["videos"]), BETTER[row["higher_is_better"]]))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines + [f"not measured: {name}: {reason}" for name, reason in not_measured.items()])


def read_video_record(video: PlannedVideo) -> dict[str, Any]:
    """The record of a finished video.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        values = json.loads(Path(video.record).read_text(encoding="utf-8"))
        if not isinstance(values["scores"], dict):
            raise TypeError("scores")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{video.record} is damaged; remove it, and the video is made again") from error
    return values


def _make_flow(names: Sequence[str], device: str) -> Any:
    """The optical flow, to be shared by all videos; None where no metric uses one or it cannot be had."""
    from longvid.metrics.base import accepted_options
    from longvid.metrics.flow import make_flow

    if not any(accepted_options(name, {"flow": None}) for name in names):
        return None
    try:
        return make_flow(device=device)
    except ValueError:  # each metric that needs it says so itself
        return None
