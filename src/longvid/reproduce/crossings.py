"""What helped where no paper had tried it: one table over the experiments that join parts of different papers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from longvid.reproduce.experiment import Experiment, Measure, Size
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.registry import EXPERIMENTS
from longvid.reproduce.report import chosen, values_of
from longvid.reproduce.statistics import Interval, paired_difference


@dataclass(frozen=True)
class Crossing:
    """A part of one method in another.

    Attributes:
        part: What is added, and from where.
        host: What it is added to.
        experiment: Where that was measured.
        crossed: The variant with it.
        plain: The variant without it.
    """

    part: str
    host: str
    experiment: str
    crossed: str
    plain: str


CROSSINGS = (
    Crossing("HARIVO's mitigating gradient, scale 5", "ART-V", "mitigated-art-v", "scale-5", "scale-0"),
    Crossing("HARIVO's mitigating gradient, scale 5", "StreamingT2V", "mitigated-streaming-t2v", "scale-5", "scale-0"),
    Crossing("HARIVO's frame-wise tokens", "StreamingT2V", "streaming-t2v-frame-tokens", "tokens", "without"),
    Crossing(
        "StreamingT2V's randomized blending",
        "HARIVO's windows, against windows one after another",
        "harivo-windows",
        "joint",
        "streamed",
    ),
    Crossing(
        "StreamingT2V's randomized blending",
        "HARIVO's windows, against joint ones cut in the middle",
        "harivo-windows",
        "joint",
        "joint-middle",
    ),
)


def crossings_table(folder: Path) -> str:
    """One row per crossing: which measures it made better, which worse, and where nothing can be said.

    A measure is better or worse where the whole 95 % interval of the paired difference lies on that side of zero. The
    measurements are those that the pages in `folder` show.
    """
    lines = ["| what | in | better | worse | undecided |", "|---|---|---|---|---|"]
    for crossing in CROSSINGS:
        experiment = EXPERIMENTS[crossing.experiment]
        page = folder / f"{experiment.name}.json"
        where = f"[{crossing.host}]({experiment.name}.md)" if page.is_file() else crossing.host
        cells = ("not run", "", "") if not page.is_file() else effects(crossing, experiment, page)
        lines.append(f"| {crossing.part} | {where} | {' | '.join(cell or '–' for cell in cells)} |")
    return "\n".join(lines) + "\n"


def effects(crossing: Crossing, experiment: Experiment, page: Path) -> tuple[str, str, str]:
    """What became better, worse, and what did neither, in words; from the file of measurements beside `page`."""
    numbers = json.loads(page.read_text(encoding="utf-8"))
    file = MeasurementFile(page.with_suffix(".jsonl"), experiment.name, numbers["settings"])
    table = values_of(chosen(experiment, Size(**numbers["size"]), file.measured))
    cells: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for measure in experiment.measures:
        crossed, plain = (table.get(name, {}).get(measure.name, {}) for name in (crossing.crossed, crossing.plain))
        difference = paired_difference(crossed, plain)
        if measure.better is None or difference is None:
            continue
        outcome = difference.sign * (1 if measure.better == "higher" else -1)
        cells[outcome].append(f"{measure.label} {_shown(measure, difference)}" if outcome else measure.label)
    return "; ".join(cells[1]), "; ".join(cells[-1]), ", ".join(cells[0])


def _shown(measure: Measure, difference: Interval) -> str:
    low, high = (measure.show(end, difference=True, unit=False) for end in (difference.low, difference.high))
    return f"{measure.show(difference.mean, difference=True)} ({low} … {high})"
