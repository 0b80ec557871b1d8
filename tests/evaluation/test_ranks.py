"""Spearman's correlation against its definition: Pearson's correlation of average ranks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaportok_rl.evaluation import spearman


def average_ranks(values: list[int]) -> np.ndarray:
    return np.array([sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20))
def test_definition_with_ties(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    got = spearman(torch.tensor(first), torch.tensor(second).float())
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(np.corrcoef(average_ranks(first), average_ranks(second))[0, 1], abs=1e-9)


def test_any_shape_and_only_the_order_counts() -> None:
    values = torch.arange(12.0).view(3, 4)
    assert spearman(values, values.exp()) == pytest.approx(1.0)
    assert spearman(values, -values.T.T) == pytest.approx(-1.0)


def test_a_constant_has_no_rank() -> None:
    # Silently: a policy of one length is common and no reason to warn.
    assert math.isnan(spearman(torch.ones(5), torch.arange(5.0)))
