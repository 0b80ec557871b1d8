"""Rank correlation and its interval."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from vaportok_rl.evaluation.intervals import Interval, bootstrap_interval


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two tensors with equally many entries; NaN if either is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        result = stats.spearmanr(np.asarray(first.flatten().cpu()), np.asarray(second.flatten().cpu()))
    return float(result.statistic)


def spearman_interval(first: ArrayLike, second: ArrayLike, seed: int = 0) -> tuple[float, Interval]:
    """Spearman's rank correlation of ``[N]`` pairs, and its 95 % bootstrap interval over the pairs."""
    pairs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return float(_rank_correlation(*pairs)), bootstrap_interval(_rank_correlation, *pairs, seed=seed)


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Spearman's correlation along an axis: Pearson's of the ranks."""
    left, right = (stats.rankdata(values, axis=axis) for values in (first, second))
    left, right = left - left.mean(axis, keepdims=True), right - right.mean(axis, keepdims=True)
    found: NDArray[np.float64] = (left * right).sum(axis) / np.sqrt((left**2).sum(axis) * (right**2).sum(axis))
    return found
