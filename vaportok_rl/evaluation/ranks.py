"""Rank statistics."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats
from torch import Tensor


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two tensors with equally many entries; NaN if either is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        result = stats.spearmanr(np.asarray(first.flatten().cpu()), np.asarray(second.flatten().cpu()))
    return float(result.statistic)
