"""Spearman's correlation against its definition: Pearson's correlation of average ranks."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from vaportok_rl.evaluation import spearman, spearman_interval


def test_any_shape_and_only_the_order_counts() -> None:
    values = torch.arange(12.0).view(3, 4)
    assert spearman(values, values.exp()) == pytest.approx(1.0)
    assert spearman(values, -values.T.T) == pytest.approx(-1.0)


def test_a_constant_has_no_rank() -> None:
    # Silently: a policy of one length is common and no reason to warn.
    assert math.isnan(spearman(torch.ones(5), torch.arange(5.0)))


def test_the_interval_is_of_scipys_correlation_of_resampled_pairs() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 6, 20).astype(float)  # with ties
    second = first + rng.normal(0, 3, 20)
    rho, (low, high) = spearman_interval(first, second)
    assert rho == pytest.approx(stats.spearmanr(first, second).statistic)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 20, 20)
        drawn.append(stats.spearmanr(first[rows], second[rows]).statistic)
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.05)
