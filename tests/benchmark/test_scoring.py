"""Hypervolumes, areas and statistics against closed forms and counting."""

import itertools

import numpy as np
import pytest

from vaportok_rl.benchmark.scoring import area_under, hypervolume, performance_profile, probability_of_improvement


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], [0, 0], 0),
        ([[1]], [-1], 2),
        ([[2, 1], [1, 2]], [0, 0], 3),
        ([[2, 1], [1, 2], [1, 1], [2, 1]], [0, 0], 3),  # dominated and repeated points add nothing
        ([[2, 1], [-1, 9]], [0, 0], 2),  # not above the reference
        ([[1, 1, 1]], [0, 0, -1], 2),
        ([[2, 1, 1], [1, 2, 1], [1, 1, 2]], [0, 0, 0], 4),
        ([[1, 1, 1, 2], [1, 1, 2, 1]], [0, 0, 0, 0], 3),
    ],
)
def test_hypervolume_of_boxes(points: list[list[float]], reference: list[float], volume: float) -> None:
    assert hypervolume(points, reference) == pytest.approx(volume)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_by_counting_cells(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    points = rng.integers(0, 5, (9, objectives))
    cells = np.array(list(itertools.product(range(5), repeat=objectives)))
    covered = (points[:, None] > cells).all(-1).any(0).sum()
    assert hypervolume(points.tolist(), [0] * objectives) == pytest.approx(covered)


def test_area_under_a_curve() -> None:
    assert area_under([0, 10, 20], [0, 1, 1]) == pytest.approx(0.75)
    assert area_under([5, 10, 20], [1, 1, 1]) == pytest.approx(1)
    assert area_under([7], [0.3]) == 0.3


def test_statistics_over_runs() -> None:
    assert performance_profile([0.1, 0.5, 0.9, 0.5], [0.0, 0.5, 0.9]).tolist() == [1, 0.25, 0]
    assert probability_of_improvement([1, 2, 3], [0, 2]) == pytest.approx((1 + 1.5 + 2) / 6)
    assert probability_of_improvement([1], [1]) == 0.5
