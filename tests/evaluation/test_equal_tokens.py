"""Policies at equal tokens: hand-made curves, and intervals that hold what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vaportok_rl.evaluation.equal_tokens import EqualTokens, share_between


@pytest.mark.parametrize(
    ("value", "start", "end", "expected"),
    [(1, 1, 3, 0), (3, 1, 3, 1), (0, 1, 3, -0.5), (1, 3, 1, 1), (5, 2, 2, math.nan), (1, 1, 1 + 1e-9, math.nan)],
)
def test_share_between(value: float, start: float, end: float, expected: float) -> None:
    assert share_between(value, start, end) == pytest.approx(expected, nan_ok=True)


@pytest.fixture
def curves() -> EqualTokens:
    """Four paths of two clips: one clip gains from every token, the other only from its second."""
    steep, flat = np.array([9.0, 6, 3, 0]), np.array([3.0, 2, 2, 2])
    return EqualTokens(np.stack([np.stack([steep, flat], -1)] * 4, 1))


def test_savings_by_hand(curves: EqualTokens) -> None:
    # At 2.5 tokens a fixed length leaves (4 + 2.5) / 2; four tokens of the steep clip and one of the flat leave 1.5.
    assert curves.savings(2.5, 1.5) == pytest.approx({"saved": 1 - 1.5 / 3.25, "saved_share": 1})
    assert curves.savings(2.5, 3.25) == pytest.approx({"saved": 0, "saved_share": 0}, abs=1e-12)
    assert curves.savings(2.5, 6.5)["saved"] == pytest.approx(-1)
    # With all tokens there is nothing to choose.
    assert math.isnan(curves.savings(4, 1)["saved_share"])


def test_intervals() -> None:
    rng = np.random.default_rng(0)
    errors = np.sort(rng.random((16, 24, 3)), 0)[::-1]
    curves = EqualTokens(errors)

    def chosen(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lengths, np.take_along_axis(errors, lengths[None] - 1, 0)[0]

    policies = {
        "fixed": chosen(np.full((24, 3), 5)),
        "random": chosen(rng.integers(1, 17, (24, 3))),
        "best": chosen((errors + 0.03 * np.arange(16)[:, None, None]).argmin(0) + 1),
    }
    found = curves.intervals(policies, seed=1)
    assert found == curves.intervals(policies, seed=1)
    # Both curves are drawn with the policy: what lies on one of them lies on it in every draw.
    assert found["fixed"]["saved"] == pytest.approx((0, 0), abs=1e-9)
    assert found["best"]["saved_share"] == pytest.approx((1, 1), abs=0.02)
    for name, (lengths, mse) in policies.items():
        for metric, value in curves.savings(lengths.mean(), mse.mean()).items():
            low, high = found[name][metric]
            assert low - 1e-9 <= value <= high + 1e-9, (name, metric)
    low, high = found["random"]["saved"]
    assert 0.01 < high - low < 0.5
    assert all(map(math.isnan, EqualTokens(errors[:, :1]).intervals({"one": (1, 1)})["one"]["saved"]))
