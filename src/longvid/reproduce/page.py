"""The page of an experiment: verdict, figure, table, and how it came about; and the table of all pages."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from longvid.reproduce.crossings import crossings_table
from longvid.reproduce.experiment import Experiment, Measure, Size
from longvid.reproduce.figure import draw_figure
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.registry import EXPERIMENTS
from longvid.reproduce.report import Report, make_report
from longvid.reproduce.statistics import Interval
from longvid.reproduce.verdicts import Wins

INDEX = "index.md"
MARKS = "<!-- {} -->\n", "<!-- end of {} -->\n"


def write_page(experiment: Experiment, size: Size, file: MeasurementFile, folder: Path) -> Path:
    """Write `NAME.svg`, `NAME.json` and `NAME.md` from the measurements of so many prompts and seeds."""
    report = make_report(experiment, size, file)
    draw_figure(experiment, report.rows, report.measured, folder / f"{experiment.name}.svg")
    _replace(folder / f"{experiment.name}.json", numbers_text(report))
    page = folder / f"{experiment.name}.md"
    _replace(page, page_text(report))
    update_index(folder)
    return page


def numbers_text(report: Report) -> str:
    """The figures of the table and the verdicts as JSON."""
    numbers = {
        "experiment": report.experiment.name,
        "size": asdict(report.size),
        **{name: report.header[name] for name in ("settings", "notes")},
        "rows": {name: {key: asdict(one) for key, one in row.items()} for name, row in report.rows.items()},
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "summary": report.summary,
    }
    return json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"


def page_text(report: Report) -> str:
    """The page in Markdown."""
    experiment, name = report.experiment, report.experiment.name
    found = [f"* {_bold(one.sentence)}{'' if one.from_paper else ' (our expectation)'}" for one in report.verdicts]
    measures = [f"* **{measure.label}**: {measure.about}." for measure in experiment.measures if measure.about]
    against = any(isinstance(expectation, Wins) for expectation in experiment.expectations)
    paired = "Differences are the first variant minus the second, paired by prompt and seed." if against else ""
    parts = [
        f"<!-- written by `longvid reproduce {name}` -->",
        f"# {experiment.title}",
        f"**The claim.** {experiment.claim}\n*{experiment.source}.*",
        "## Verdict",
        report.summary,
        "\n".join(found),
        paired,
        f"![{experiment.title}]({name}.svg)",
        "## Figures",
        _table(experiment, report.rows),
        f"Mean and 95 % interval. ↑ and ↓ say which numbers are better. {_best(experiment, report.rows)}".rstrip(),
        "\n".join(measures),
        "## What was done",
        experiment.setup,
        _how_much(report),
        "\n".join(f"* {note}" for note in experiment.notes),
        _how_to(report),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _how_much(report: Report) -> str:
    size = report.size
    trained = f", {size.training_steps} training steps per model" if size.training_steps else ""
    shares = any(measure.unit == "%" for measure in report.experiment.measures)
    wilson = "; that of a share at 0 or 100 % is Wilson's" if shares else ""
    return (
        f"{size.videos}, {size.num_frames} frames each{trained}. The interval is"
        f" Student's over prompts, each the mean of its seeds{wilson}. {len(report.verdicts)} comparisons are looked at,"
        " each at 95 %, without a correction for their number."
    )


def _how_to(report: Report) -> str:
    size, name = report.size, report.experiment.name
    command = (
        f"longvid reproduce {name} --prompts {size.num_prompts} --seeds {size.num_seeds} --frames {size.num_frames}"
    )
    command += f" --training-steps {size.training_steps}" if size.training_steps else ""
    model = report.header["settings"].get("model")
    command += f" --model {model}" if model not in (None, report.experiment.model) else ""
    versions = ", ".join(f"{key} {value}" for key, value in report.header["notes"].items())
    files = f"Every measurement is in [`{name}.jsonl`]({name}.jsonl), the table in [`{name}.json`]({name}.json)"
    return f"{files} ({versions}).\n\n```bash\n{command}\n```"


def update_index(folder: Path) -> None:
    """Write the tables of a folder's `index.md` anew, where it has them between their marks."""
    path = folder / INDEX
    if not path.is_file():
        return
    old = text = path.read_text(encoding="utf-8")
    for name, table in (("experiments", index_table), ("crossings", crossings_table)):
        begin, end = (mark.format(name) for mark in MARKS)
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{table(folder)}\n{end}{rest.split(end)[1]}"
    if text != old:
        _replace(path, text)


def index_table(folder: Path) -> str:
    """One row per experiment: what came out, or that it was not run."""
    lines = ["| experiment | of | what came out |", "|---|---|---|"]
    for name, experiment in EXPERIMENTS.items():
        path = folder / f"{name}.json"
        result = "not run" if not path.is_file() else json.loads(path.read_text(encoding="utf-8"))["summary"]
        link = f"[{experiment.title}]({name}.md)" if path.is_file() else experiment.title
        lines.append(f"| {link} (`{name}`) | {experiment.source} | {result} |")
    return "\n".join(lines) + "\n"


def _table(experiment: Experiment, rows: dict[str, dict[str, Interval]]) -> str:
    marks = {"higher": " ↑", "lower": " ↓", None: ""}
    heads = [f"{measure.label}{marks[measure.better]}".replace("|", r"\|") for measure in experiment.measures]
    lines = [f"| variant | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for variant in experiment.variants:
        cells = [_cell(measure, rows[variant.name].get(measure.name)) for measure in experiment.measures]
        lines.append(f"| {variant.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measure: Measure, interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low is None or interval.high is None:
        return measure.show(interval.mean)
    ends = " … ".join(measure.show(end, unit=False) for end in (interval.low, interval.high))
    return f"{measure.show(interval.mean)} ({ends})"


def _best(experiment: Experiment, rows: dict[str, dict[str, Interval]]) -> str:
    """Where on the axis of a sweep the mean of each measure is best."""
    words = []
    for measure in experiment.measures:
        means = {
            variant.label: rows[variant.name][measure.name].mean
            for variant in experiment.variants
            if variant.x is not None and measure.name in rows[variant.name]
        }
        if measure.better and means:
            best = (max if measure.better == "higher" else min)(means.values())
            labels = [label for label, mean in means.items() if mean == best]
            where = " and ".join(labels) if len(labels) < 3 else f"{len(labels)} of {len(means)} alike"
            words.append(f"{measure.label} at {where}")
    return f"The best mean of the sweep: {', '.join(words)}." if experiment.axis else ""


def _bold(sentence: str) -> str:
    """The outcome in bold."""
    head, rest = sentence.split(". ", 1)
    return f"**{head}.** {rest}"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
