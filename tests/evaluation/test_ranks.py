"""Spearman's correlation against its definition: Pearson's correlation of average ranks."""

import math

import pytest
import torch

from vaportok_rl.evaluation import spearman


def test_any_shape_and_only_the_order_counts() -> None:
    values = torch.arange(12.0).view(3, 4)
    assert spearman(values, values.exp()) == pytest.approx(1.0)
    assert spearman(values, -values.T.T) == pytest.approx(-1.0)


def test_a_constant_has_no_rank() -> None:
    # Silently: a policy of one length is common and no reason to warn.
    assert math.isnan(spearman(torch.ones(5), torch.arange(5.0)))
