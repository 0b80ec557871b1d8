"""Scores of runs: the volume under a front, the area under a learning curve, and statistics over runs.

The interquartile mean, performance profiles and the probability of improvement are those of Agarwal et al. 2021 (arXiv
2108.13264). Their package ``rliable`` gives the same numbers, but needs ``arch``, ``statsmodels`` and ``seaborn`` for
resampling and plots, so they are written here, with SciPy's bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume that the points dominate above a reference point; every objective is maximised.

    By slicing along the last objective; fine for some hundred points in two to four dimensions.

    Args:
        points: N vectors of length M.
        reference: a vector of length M; points not above it count with the part that is.
    """
    above = np.asarray(points, dtype=np.float64).reshape(-1, len(reference)) - np.asarray(reference, dtype=np.float64)
    return _volume(above[(above > 0).all(1)])


def _volume(above: NDArray[np.float64]) -> float:
    """`hypervolume` above the origin."""
    if not len(above):
        return 0.0
    if above.shape[1] == 1:
        return float(above.max())
    if above.shape[1] == 2:  # a staircase from the right
        ordered = above[np.argsort(-above[:, 0])]
        heights = np.maximum.accumulate(ordered[:, 1])
        return float((ordered[:, 0] * np.diff(heights, prepend=0.0)).sum())
    ordered = above[np.argsort(-above[:, -1])]
    depths = -np.diff(ordered[:, -1], append=0.0)
    return float(sum(depth * _volume(ordered[: row + 1, :-1]) for row, depth in enumerate(depths) if depth > 0))


def area_under(decisions: ArrayLike, scores: ArrayLike) -> float:
    """Mean height of a learning curve over its range of decisions (trapezia); the score itself with one point."""
    x, y = np.asarray(decisions, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(x) < 2 or x[-1] == x[0]:
        return float(y[-1])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of runs whose score exceeds each threshold: ``[T]``."""
    values, levels = np.ravel(scores), np.asarray(thresholds, dtype=np.float64)
    found: NDArray[np.float64] = (values[:, None] > levels).mean(0)
    return found


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Probability that a run of ours scores higher than a run of theirs; ties count half (Mann and Whitney's U)."""
    difference = np.ravel(ours)[:, None] - np.ravel(theirs)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
