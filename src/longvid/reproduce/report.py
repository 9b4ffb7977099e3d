"""From single measurements to means, intervals and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from longvid.reproduce.experiment import Experiment, Measure, Measured, Size
from longvid.reproduce.records import Key, MeasurementFile
from longvid.reproduce.statistics import Interval, Values, mean_interval, prompt_means
from longvid.reproduce.verdicts import Verdict, summary


@dataclass(frozen=True)
class Report:
    """What an experiment gave.

    Attributes:
        experiment: The experiment.
        size: How much was measured.
        header: The first line of the file of measurements.
        measured: The single measurements.
        rows: Mean and interval by variant and measure.
        verdicts: What became of each expectation.
    """

    experiment: Experiment
    size: Size
    header: dict[str, Any]
    measured: dict[Key, Measured]
    rows: dict[str, dict[str, Interval]]
    verdicts: list[Verdict]

    @property
    def summary(self) -> str:
        """All verdicts in a sentence."""
        return summary(self.verdicts)


def make_report(experiment: Experiment, size: Size, file: MeasurementFile) -> Report:
    """The report on the first prompts and seeds of a file."""
    measured = chosen(experiment, size, file.measured)
    table = values_of(measured)
    verdicts = [expectation.judge(experiment, table) for expectation in experiment.expectations]
    return Report(experiment, size, file.header, measured, intervals_of(experiment, table), verdicts)


def chosen(experiment: Experiment, size: Size, measured: dict[Key, Measured]) -> dict[Key, Measured]:
    """The measurements of the first prompts and seeds, in a fixed order."""
    keys = [
        (variant.name, prompt, seed)
        for variant in experiment.variants
        for prompt in range(size.num_prompts)
        for seed in experiment.seeds(variant, size)
    ]
    return {key: measured[key] for key in keys if key in measured}


def values_of(measured: dict[Key, Measured]) -> dict[str, dict[str, Values]]:
    """Numbers by variant and measure; where a video has none, the measure lacks it."""
    table: dict[str, dict[str, Any]] = {}
    for (variant, prompt, seed), one in measured.items():
        for name, value in one.values.items():
            if value is not None:
                table.setdefault(variant, {}).setdefault(name, {})[prompt, seed] = value
    return table


def intervals_of(experiment: Experiment, table: dict[str, dict[str, Values]]) -> dict[str, dict[str, Interval]]:
    """Mean and interval of every variant and measure."""
    return {
        variant.name: {
            measure.name: _interval(measure, table[variant.name][measure.name])
            for measure in experiment.measures
            if measure.name in table.get(variant.name, {})
        }
        for variant in experiment.variants
    }


def _interval(measure: Measure, values: Values) -> Interval:
    interval = mean_interval(values)
    if measure.unit != "%":
        return interval
    means = prompt_means(values).values()
    if len(set(means)) == 1 and interval.mean in (0, 1):
        from longvid.sprites.report import wilson_interval

        low, high = wilson_interval(round(interval.mean * len(means)), len(means))
        return replace(interval, low=low, high=high)
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(interval.low, 0.0), high=min(interval.high, 1.0))
