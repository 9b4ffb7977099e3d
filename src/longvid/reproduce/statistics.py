"""Means with intervals, where every prompt was used with several seeds: prompts are the sample, seeds are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Values = Mapping[tuple[int, int], float]
"""One number per (prompt, seed)."""


@dataclass(frozen=True)
class Interval:
    """A mean and its interval.

    Attributes:
        mean: The mean over prompts of the means over seeds.
        low: Lower end; None where one prompt, or none, gives no interval.
        high: Upper end.
        num_prompts: Prompts that the mean is over.
        num_values: Single measurements.
    """

    mean: float
    low: float | None
    high: float | None
    num_prompts: int
    num_values: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on that side of zero, else 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    r"""The mean of single measurements with Student's interval over prompts.

    With :math:`m_i` the mean over the seeds of prompt i, and :math:`s` the standard deviation of the :math:`n` of them,

    .. math:: \bar m \pm t_{n - 1} \; s / \sqrt n

    Two videos of one prompt are more alike than two of two prompts, so seeds do not count as more of a sample.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value; got none")
    means = list(prompt_means(values).values())
    n, mean = len(means), math.fsum(means) / len(means)
    if n < 2:
        return Interval(mean, None, None, n, len(values))
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (n - 1))
    half = student_quantile(level, n - 1) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, len(values))


def paired_difference(first: Values, second: Values, level: float = 0.95) -> Interval | None:
    """`mean_interval` of `first - second`, pair by pair, where both have a value; None where they share none."""
    shared = {key: value - second[key] for key, value in first.items() if key in second}
    return mean_interval(shared, level) if shared else None


def prompt_means(values: Values) -> dict[int, float]:
    """The mean over the seeds of every prompt."""
    rows: dict[int, list[float]] = {}
    for (prompt, _), value in values.items():
        rows.setdefault(prompt, []).append(value)
    return {prompt: math.fsum(row) / len(row) for prompt, row in rows.items()}


def seed_means(values: Values) -> dict[int, float]:
    """The mean over the prompts of every seed."""
    return prompt_means({(seed, prompt): value for (prompt, seed), value in values.items()})


def student_quantile(level: float, degrees: int) -> float:
    """The number that the absolute value of Student's t stays below with probability `level`."""
    if not 0 < level < 1 or degrees < 1:
        raise ValueError(f"expected a level in (0, 1) and at least 1 degree of freedom; got {level}, {degrees}")
    low, high = 0.0, 1.0
    while _student_inside(high, degrees) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_inside(middle, degrees) < level else (low, middle)
    return (low + high) / 2


def rank_correlation(values: Iterable[float]) -> float:
    """Spearman's correlation of numbers with their place in the row: 1 if they only rise, -1 if they only fall.

    Equal numbers share the mean of their ranks; a row of equal numbers has correlation 0.
    """
    row = list(values)
    ranks = [sum(other < value for other in row) + (sum(other == value for other in row) - 1) / 2 for value in row]
    middle = (len(row) - 1) / 2
    up = math.fsum((rank - middle) * (place - middle) for place, rank in enumerate(ranks))
    spread = math.fsum((rank - middle) ** 2 for rank in ranks) * math.fsum((i - middle) ** 2 for i in range(len(row)))
    return up / math.sqrt(spread) if spread else 0.0


def _student_inside(t: float, degrees: int) -> float:
    """P(|T| < t) in closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine = math.cos(angle)
    first = 2 if degrees % 2 else 1
    total, term = 0.0, cosine if degrees % 2 else 1.0
    for k in range(first, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    if degrees % 2:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
