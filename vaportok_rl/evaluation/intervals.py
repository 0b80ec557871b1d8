"""Uncertainty of metrics: bootstrap intervals over clips, and the interquartile mean over runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES, CONFIDENCE = 2000, 0.95

Interval = tuple[float, float]


def bootstrap_interval(
    statistic: Callable[..., Any], *samples: ArrayLike, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % percentile bootstrap interval of a statistic of paired samples.

    Args:
        statistic: of one array per sample, along ``axis=-1``.
        *samples: ``[N]`` each; entries with the same index are resampled together.
        seed: of the resamples.
        resamples: number of resamples.

    Returns:
        Lower and upper end; NaN where N < 2 or a resample has no value.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    if len(arrays[0]) < 2:
        return float("nan"), float("nan")
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # SciPy warns if all resamples agree; the interval is then a point.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            arrays,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def percentile_interval(draws: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The central interval of bootstrap draws ``[R]``; NaN if one of them is NaN."""
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, seed: int = 0) -> Interval:
    """`bootstrap_interval` of the mean of ``[N]`` values."""
    return bootstrap_interval(np.mean, values, seed=seed)


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half, robust to outliers (Agarwal et al. 2021, arXiv 2108.13264).

    For three values or fewer it is the mean.
    """
    return float(_interquartile_mean(np.asarray(values, dtype=np.float64)))


def interquartile_mean_interval(values: ArrayLike, seed: int = 0) -> Interval:
    """`bootstrap_interval` of the interquartile mean of ``[N]`` values, one per run."""
    return bootstrap_interval(_interquartile_mean, values, seed=seed)


def _interquartile_mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)
