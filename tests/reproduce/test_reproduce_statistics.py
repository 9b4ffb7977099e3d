"""The statistics of the experiments against closed forms and scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from longvid.reproduce.statistics import (
    mean_interval,
    paired_difference,
    prompt_means,
    rank_correlation,
    seed_means,
    student_quantile,
)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 23, 99])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_quantile_is_students(degrees, level):
    assert student_quantile(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_the_interval_of_one_to_five_is_known():
    interval = mean_interval({(prompt, 0): prompt + 1.0 for prompt in range(5)})
    half = 2.7764451051977987 * math.sqrt(2.5) / math.sqrt(5)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, 3 - half, 3 + half))
    assert (interval.num_prompts, interval.num_values, interval.sign) == (5, 5, 1)


def test_seeds_of_a_prompt_are_averaged_and_make_no_larger_sample():
    one = mean_interval({(prompt, 0): float(prompt) for prompt in range(4)})
    many = mean_interval({(prompt, seed): prompt + seed - 1.0 for prompt in range(4) for seed in range(3)})
    assert (one.mean, one.low, one.high) == pytest.approx((many.mean, many.low, many.high))
    assert many.num_values == 12 and many.num_prompts == 4
    values = {(0, 0): 1.0, (0, 1): 3.0, (1, 1): 5.0}
    assert prompt_means(values) == {0: 2.0, 1: 5.0} and seed_means(values) == {0: 1.0, 1: 4.0}


def test_a_paired_difference_is_that_of_scipy_and_free_of_what_prompts_differ_in():
    worse = {(prompt, 0): 100.0 * prompt for prompt in range(6)}
    gains = [0.5, 1.0, 0.0, 2.0, 1.5, 1.0]
    better = {key: value + gain for (key, value), gain in zip(worse.items(), gains, strict=True)} | {(99, 0): 1e9}
    difference = paired_difference(better, worse)
    expected = stats.ttest_rel([better[key] for key in worse], list(worse.values())).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected))
    assert difference.num_prompts == 6 and difference.sign == 1
    assert paired_difference(worse, better).mean == pytest.approx(-difference.mean)
    assert paired_difference(worse, {(7, 7): 1.0}) is None


def test_one_prompt_has_no_interval_and_nothing_has_no_mean():
    assert mean_interval({(3, 0): 2.0}).low is None and mean_interval({(3, 0): 2.0}).sign == 0
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval({})


@pytest.mark.parametrize("row", [[0.1, 0.2, 0.5], [3, 2, 1], [1, 5, 2, 4, 3], [1, 1, 2, 0]])
def test_the_rank_correlation_is_spearmans(row):
    assert rank_correlation(row) == pytest.approx(stats.spearmanr(row, range(len(row))).statistic)


def test_the_rank_correlation_of_equal_numbers_is_zero():
    assert rank_correlation([2, 2, 2]) == 0 and rank_correlation([1]) == 0
