"""The equal-slope allocation against SciPy's convex hull and against minimising the Lagrangian by looking at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from vaportok_rl.evaluation.equal_slope import EqualSlope, lower_hull


def errors(seed: int, options: int, clips: int) -> NDArray[np.float64]:
    """Errors that mostly fall with the length, and now and then rise."""
    rng = np.random.default_rng(seed)
    return 1 + rng.exponential(1.0, clips) * np.cumsum(rng.normal(-0.3, 0.5, (options, clips)), 0) / options


@given(st.integers(0, 10_000), st.integers(4, 20))
def test_the_hull_is_that_of_computational_geometry(seed: int, options: int) -> None:
    values = errors(seed, options, 1)[:, 0]
    corners = lower_hull(values)
    # A point far above closes the hull from the top, so that all other corners are lower ones.
    points = np.column_stack([np.arange(options), values])
    far = np.array([[0, 1e3], [options - 1, 1e3]])
    below = {int(at) for at in ConvexHull(np.vstack([points, far])).vertices if at < options}
    assert set(corners.tolist()) == {at for at in below if at <= values.argmin()}


def test_hulls_by_hand() -> None:
    assert lower_hull(np.array([5.0, 4.0, 1.0, 0.0, 2.0])).tolist() == [0, 2, 3]
    assert lower_hull(np.array([1.0])).tolist() == [0]
    assert lower_hull(np.array([1.0, 2.0, 3.0])).tolist() == [0]
    assert lower_hull(np.array([1.0, 1.0, 1.0])).tolist() == [0]


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 4), st.integers(1, 3))
def test_every_corner_minimises_the_lagrangian(seed: int, options: int, clips: int, shortest: int) -> None:
    mse = errors(seed, options, clips)
    slope = EqualSlope.of(mse, shortest)
    lengths = np.arange(shortest, shortest + options)
    tokens, distortion = slope.curve()
    for price in np.random.default_rng(seed).exponential(0.2, 5):
        best = (mse + price * lengths[:, None]).min(0).mean()
        assert (distortion + price * tokens).min() == pytest.approx(best)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 4))
def test_the_curve_is_the_linear_relaxation(seed: int, options: int, clips: int) -> None:
    mse = errors(seed, options, clips)
    slope, mean = EqualSlope.of(mse), 1 + (options - 1) * np.random.default_rng(seed + 1).random()
    lengths = np.repeat(np.arange(1, options + 1), clips)[None]
    one_each = np.tile(np.eye(clips), options)
    relaxed = linprog(mse.ravel(), A_ub=lengths, b_ub=[mean * clips], A_eq=one_each, b_eq=np.ones(clips))
    assert slope.bound(mean) == pytest.approx(relaxed.fun / clips, abs=1e-7)


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 5), st.integers(0, 30))
def test_lengths_keep_to_the_budget_and_lie_on_the_curve(seed: int, options: int, clips: int, spare: int) -> None:
    mse = errors(seed, options, clips)
    slope, budget = EqualSlope.of(mse, 2), 2 * clips + spare
    lengths = slope.lengths(budget)
    assert lengths.sum() <= budget
    assert lengths.min() >= 2
    reached = mse[lengths - 2, np.arange(clips)].mean()
    assert reached == pytest.approx(slope.bound(lengths.mean()))
