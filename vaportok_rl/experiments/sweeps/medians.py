"""Medians over seeds with intervals, and inequalities between variants, stated as measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from vaportok_rl.evaluation.intervals import bootstrap_interval
from vaportok_rl.experiments.sweeps.columns import Column

OVER_SEEDS = "Median of the seeds; in brackets the 95 % bootstrap interval over them (of three: lowest and highest)."
"""What `median_cell` shows."""


def median_cell(values: ArrayLike, column: Column) -> str:
    """The median of one value per seed, and its interval if there are several; an en dash if one is NaN."""
    found, style = column.factor * np.asarray(values, dtype=np.float64), column.style
    if np.isnan(found).any():
        return "–"
    low, high = bootstrap_interval(np.median, found)
    interval = "" if np.isnan(low) else f" [{low:{style}}, {high:{style}}]"
    return f"{np.median(found):{style}}{interval}"


def by_seed(frame: pd.DataFrame, variant: str, metric: str) -> pd.Series:
    """A metric of a variant, one value per seed."""
    found: pd.Series = frame[frame["variant"] == variant].set_index("seed")[metric]
    return found


def stated(claim: str, holds: Callable[[Callable[[str, str], float]], bool], frame: pd.DataFrame) -> str:
    """A claim about variants as a list item: whether it held for the medians, and for how many of the seeds.

    Args:
        claim: in words.
        holds: decides it, given a function that looks up the value of a variant and a metric.
        frame: a row per variant and seed.
    """

    def judged(some: pd.DataFrame) -> bool:
        return holds(lambda variant, metric: float(by_seed(some, variant, metric).median()))

    each = [judged(own) for _, own in frame.groupby("seed")]
    return f"- {claim}: **{'held' if judged(frame) else 'not held'}** ({sum(each)} of {len(each)} seeds)"
