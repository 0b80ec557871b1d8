"""Fréchet distance and MMD against textbook formulas in SciPy and NumPy on all features at once."""

from functools import reduce

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg

from vaportok_rl.evaluation.feature_distances import (
    FeatureStatistics,
    TooFewClipsError,
    frechet_distance,
    polynomial_mmd,
    resampled_frechet,
)
from vaportok_rl.runtime.ranks import Processes

Features = NDArray[np.float64]


def drawn(seed: int, count: int, width: int = 12, *, offset: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + offset + rng.normal(size=width)


def statistics(features: Features, *cuts: int) -> FeatureStatistics:
    parts = [FeatureStatistics.of(torch.from_numpy(part)) for part in np.split(features, cuts)]
    return reduce(FeatureStatistics.merged, parts)


def reference_frechet(one: Features, other: Features) -> float:
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(first @ second)
    apart = one.mean(0) - other.mean(0)
    return float(apart @ apart + np.trace(first + second - 2 * root.real))


def reference_mmd(one: Features, other: Features) -> float:
    def kernel(x: Features, y: Features) -> float:
        return float(((x @ y.T / x.shape[1]) ** 2).mean())

    return kernel(one, one) + kernel(other, other) - 2 * kernel(one, other)


@pytest.mark.parametrize(("counts", "offset"), [((40, 40), 0.0), ((60, 33), 2.0), ((200, 50), 1000.0)])
def test_both_equal_references_and_are_symmetric(counts: tuple[int, int], offset: float) -> None:
    one, other = drawn(1, counts[0], offset=offset), drawn(2, counts[1], offset=offset)
    a, b = statistics(one), statistics(other)
    for distance, reference in ((frechet_distance, reference_frechet), (polynomial_mmd, reference_mmd)):
        assert distance(a, b) == pytest.approx(reference(one, other), rel=1e-6)
        assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)


@pytest.mark.parametrize("count", [5, 12, 13, 100])
def test_both_vanish_on_equal_sets_in_any_order(count: int) -> None:
    """Also where the covariance is singular, as complex roots of a product do not."""
    features = drawn(3, count, offset=50.0)
    a, b = statistics(features), statistics(features[::-1].copy(), 1, 3)
    scale = float(a.covariance.trace())
    assert frechet_distance(a, b, allow_few=True) <= 1e-9 * scale
    assert polynomial_mmd(a, b) <= 1e-18 * float(a.second_moment.square().sum())


def test_batches_and_merging_do_not_matter() -> None:
    one, other = drawn(4, 90, offset=100.0), statistics(drawn(5, 50))
    whole = frechet_distance(statistics(one), other)
    ways = [
        statistics(one, 1, 2, 50, 51),
        statistics(one[::-1].copy(), *range(7, 90, 7)),
        statistics(one[60:]).merged(statistics(one[:10]).merged(statistics(one[10:60], 20))),
    ]
    for way in ways:
        assert way.count == 90
        assert frechet_distance(way, other) == pytest.approx(whole, rel=1e-10)
        assert polynomial_mmd(way, other) == pytest.approx(polynomial_mmd(statistics(one), other), rel=1e-10)


def test_processes_merge_to_what_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    features = drawn(6, 31)
    shares = [statistics(features[:9]), statistics(features[9:])]
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(Processes, "gather", lambda self, values, axis: sent.append(values) or torch.cat(sent[:2]))
    for share in (*shares, shares[1]):
        found = share.over_processes(Processes(0, 2))
    torch.testing.assert_close(found.covariance, statistics(features).covariance, rtol=1e-12, atol=0)
    assert found.count == 31


@pytest.mark.parametrize("count", [1, 2, 12])
def test_too_few_clips_are_said(count: int) -> None:
    few, enough = statistics(drawn(7, count)), statistics(drawn(8, 50))
    for pair in ((few, enough), (enough, few)):
        with pytest.raises(TooFewClipsError, match=f"12 features.* got {count}; take more clips"):
            frechet_distance(*pair)
    assert polynomial_mmd(few, enough) > 0


@pytest.mark.parametrize(
    ("features", "word"),
    [
        (torch.ones(3), "shape"),
        (torch.ones(0, 3), "shape"),
        (torch.ones(2, 3, dtype=torch.int64), "int64"),
        (torch.tensor([[1.0, float("nan")]]), "NaN"),
    ],
)
def test_features_that_are_none_are_refused(features: torch.Tensor, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        FeatureStatistics.of(features)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal width, got 12 and 3"):
        frechet_distance(statistics(drawn(1, 40)), statistics(drawn(1, 40, 3)))


def test_resampled_distances_are_those_of_the_rows_drawn_together() -> None:
    sets = [drawn(seed, 40, 4) for seed in range(3)]
    reference, *others = map(torch.from_numpy, sets)
    found = resampled_frechet(reference, others, 25, seed=3)
    rng = np.random.default_rng(3)
    for row in found:
        rows = rng.integers(0, 40, 40)
        wanted = [reference_frechet(sets[0][rows], other[rows]) for other in sets[1:]]
        assert row.tolist() == pytest.approx(wanted, rel=1e-6)
