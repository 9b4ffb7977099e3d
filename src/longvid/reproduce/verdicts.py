"""Whether what a paper found was found here: expectations, each an object that looks at the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from longvid.reproduce.statistics import Interval, Values, mean_interval, paired_difference, seed_means

if TYPE_CHECKING:
    from longvid.reproduce.experiment import Experiment, Measure

Outcome = Literal["found", "reversed", "inconclusive"]
Table = Mapping[str, Mapping[str, Values]]
"""Values by variant and measure."""

HEADS: dict[Outcome, str] = {
    "found": "Found.",
    "reversed": "Not found: it is the other way round.",
    "inconclusive": "Inconclusive.",
}


@dataclass(frozen=True)
class Verdict:
    """What became of an expectation.

    Attributes:
        outcome: "found" where the whole interval lies on the expected side, "reversed" where it lies on the other one,
            "inconclusive" where it includes zero or there is none.
        sentence: The outcome, the size of the effect, its interval and the number of prompts, in plain words.
        difference: The difference that was looked at; None where there is nothing to compare.
        from_paper: Whether it is the paper's expectation, not ours.
    """

    outcome: Outcome
    sentence: str
    difference: Interval | None
    from_paper: bool


class Expectation(Protocol):
    """Something that a paper says of the measurements."""

    def judge(self, experiment: Experiment, table: Table) -> Verdict:
        """Look at the measurements."""
        ...


@dataclass(frozen=True)
class Wins:
    """One variant is better than another by a measure, pair by pair.

    Attributes:
        better: Name of the variant that should be better.
        worse: Name of the other one.
        measure: Name of the measure, which says what is better.
        from_paper: Whether the paper says so.
    """

    better: str
    worse: str
    measure: str
    from_paper: bool = True

    def judge(self, experiment: Experiment, table: Table) -> Verdict:
        """The paired difference, with its interval."""
        measure = experiment.measure(self.measure)
        first, second = (table.get(name, {}).get(self.measure, {}) for name in (self.better, self.worse))
        difference = paired_difference(first, second)
        names = f"{experiment.variant(self.better).label} against {experiment.variant(self.worse).label}"
        head = f"{_capital(measure.label)}, {names}"
        wanted = -1 if measure.better == "lower" else 1
        pairs = {key: value - second[key] for key, value in first.items() if key in second}
        return _verdict(head, measure, difference, wanted, pairs, self.from_paper)


@dataclass(frozen=True)
class Rises:
    """A measure of one variant, which is a change itself, is above zero (or below it, if it should fall).

    Attributes:
        variant: Name of the variant.
        measure: Name of the measure.
        falls: Whether it should be below zero.
        from_paper: Whether the paper says so.
    """

    variant: str
    measure: str
    falls: bool = False
    from_paper: bool = True

    def judge(self, experiment: Experiment, table: Table) -> Verdict:
        """The mean, with its interval."""
        measure = experiment.measure(self.measure)
        values = table.get(self.variant, {}).get(self.measure, {})
        head = f"{_capital(measure.label)}, {experiment.variant(self.variant).label}"
        interval = mean_interval(values) if values else None
        return _verdict(head, measure, interval, -1 if self.falls else 1, values, self.from_paper)


def summary(verdicts: list[Verdict]) -> str:
    """One or two sentences on all expectations of an experiment."""
    parts = []
    for from_paper, whose in ((True, "The paper's order of results"), (False, "What we expected ourselves")):
        outcomes = [verdict.outcome for verdict in verdicts if verdict.from_paper is from_paper]
        if outcomes:
            count = {name: outcomes.count(name) for name in HEADS}
            parts.append(
                f"{whose} was found in {count['found']} of {len(outcomes)} comparisons, was the other way round in"
                f" {count['reversed']}, and {count['inconclusive']} did not decide."
            )
    return " ".join(parts)


def _verdict(
    head: str, measure: Measure, difference: Interval | None, wanted: int, pairs: Values, from_paper: bool
) -> Verdict:
    if difference is None:
        return Verdict("inconclusive", f"Inconclusive. {head}: nothing was measured in both.", None, from_paper)
    outcome: Outcome = "inconclusive"
    if difference.sign:
        outcome = "found" if difference.sign == wanted else "reversed"
    count = f"{difference.num_prompts} prompt{'s' * (difference.num_prompts > 1)}"
    if difference.low is None or difference.high is None:
        within = f"one prompt gives no interval; {count}"
    elif not any(pairs.values()):
        within = f"no pair differs; {count}"
    else:
        low, high = (measure.show(end, difference=True, unit=False) for end in (difference.low, difference.high))
        within = f"95 % interval {low} to {high}, {count}{_seeds(pairs, wanted)}"
    sentence = f"{HEADS[outcome]} {head}: {measure.show(difference.mean, difference=True)} ({within})."
    return Verdict(outcome, sentence, difference, from_paper)


def _seeds(pairs: Values, wanted: int) -> str:
    """In how many seeds the mean lies on the expected side."""
    means = seed_means(pairs)
    agree = sum(mean * wanted > 0 for mean in means.values())
    return f", as expected in {agree} of {len(means)} seeds" if len(means) > 1 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
