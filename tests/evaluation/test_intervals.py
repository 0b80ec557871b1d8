"""Bootstrap intervals against their definition, and the interquartile mean by hand."""

import math

import numpy as np
import pytest

from vaportok_rl.evaluation.intervals import (
    bootstrap_interval,
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
    percentile_interval,
)


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert (low, high) == mean_interval(values)
    assert (low, high) != mean_interval(values, seed=1)


def test_the_interval_of_draws_is_central() -> None:
    assert percentile_interval(np.arange(1001)) == pytest.approx((25, 975))
    assert percentile_interval(np.arange(1001), confidence=0.5) == pytest.approx((250, 750))
    assert all(map(math.isnan, percentile_interval([0.0, 1.0, math.nan])))


def test_all_resamples_of_two_values() -> None:
    # Of two values, a quarter of the resamples repeat either: the ends are the values themselves.
    assert mean_interval([1.0, 5.0]) == (1.0, 5.0)


def test_paired_samples_are_drawn_together() -> None:
    values = np.random.default_rng(1).normal(size=50)

    def difference(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return (first - second).mean(axis)

    low, high = bootstrap_interval(difference, values + 2, values)
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)


def test_no_interval_without_two_values_or_a_figure() -> None:
    assert all(map(math.isnan, mean_interval([1.0])))

    def ratio(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return first.mean(axis) / second.mean(axis)

    assert all(map(math.isnan, bootstrap_interval(ratio, [0.0, 0.0], [0.0, 0.0])))
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_interquartile_mean() -> None:
    assert interquartile_mean([9, 1, 2, 3, 4, 5, 6, 100]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert interquartile_mean([1, 2, 6]) == pytest.approx(3)
    low, high = interquartile_mean_interval([1.0, 2.0, 6.0])
    assert (low, high) == (1.0, 6.0)
    calm = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1e6]
    assert interquartile_mean(calm) == 2
