"""Budgets: the integer programme against brute force, and against the equal-slope rule."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaportok_rl.agents import build_length_policy
from vaportok_rl.agents.lengths.budget import Allocation, equal_slopes, least_errors
from vaportok_rl.envs import TaildropProcess


def errors(seed: int, options: int, clips: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return 0.01 * (1 + rng.exponential(1.0, clips) * np.cumsum(rng.normal(-0.3, 0.5, (options, clips)), 0) / options)


def allocated(allocate: Allocation, mse: NDArray[np.float64], shortest: int, budget: int) -> NDArray[np.int64]:
    """Of a single path."""
    lengths: NDArray[np.int64] = allocate(torch.from_numpy(mse)[:, None], shortest, budget)[0].numpy()
    return lengths


def summed(mse: NDArray[np.float64], lengths: NDArray[np.int64], shortest: int) -> float:
    return float(mse[lengths - shortest, np.arange(mse.shape[1])].sum())


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 3), st.integers(1, 2), st.integers(0, 12))
def test_integer_programme_is_brute_force(seed: int, options: int, clips: int, shortest: int, spare: int) -> None:
    mse, budget = errors(seed, options, clips), shortest * clips + spare
    choices = np.array(list(product(range(shortest, shortest + options), repeat=clips)))
    best = min(summed(mse, choice, shortest) for choice in choices[choices.sum(1) <= budget])
    lengths = allocated(least_errors, mse, shortest, budget)
    assert lengths.sum() <= budget
    assert lengths.min() >= shortest
    assert summed(mse, lengths, shortest) == pytest.approx(best, rel=1e-6)


@given(st.integers(0, 10_000), st.integers(0, 100))
def test_they_agree_where_errors_are_convex(seed: int, spare: int) -> None:
    rng = np.random.default_rng(seed)
    options, clips = 16, 6
    steps = np.sort(rng.exponential(1.0, (options - 1, clips)), 0)[::-1]
    mse = np.vstack([steps[::-1].cumsum(0)[::-1], np.zeros(clips)]) * rng.exponential(1.0, clips)
    budget = clips + spare
    exact, relaxed = allocated(least_errors, mse, 1, budget), allocated(equal_slopes, mse, 1, budget)
    assert summed(mse, relaxed, 1) == pytest.approx(summed(mse, exact, 1), rel=1e-6)
    assert relaxed.sum() == min(budget, options * clips)


@pytest.mark.parametrize("name", ["budget", "lagrangian"])
def test_as_policies(tiny_world: str, name: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    scene = process.sample_scene([np.random.default_rng(seed) for seed in range(4)])
    mse = process.engine.score_all(scene).mse
    lengths = build_length_policy(f"{name}:5", process)(scene, torch.Generator()).n_tokens
    assert (lengths.sum(1) <= 15).all()
    fixed = mse[4].sum(1)
    chosen = mse.gather(0, lengths[None] - 1)[0].sum(1)
    if name == "budget":
        assert (chosen <= fixed + 1e-6).all()
    everything = build_length_policy(f"{name}:16", process)(scene, torch.Generator()).n_tokens
    assert torch.allclose(mse.gather(0, everything[None] - 1)[0], mse.amin(0))


def test_within_a_token_range_and_a_smaller_budget(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, min_tokens=2, max_tokens=6, token_budget=12)
    scene = process.sample_scene([np.random.default_rng(0)])
    for spec in ("budget:5", "lagrangian:5"):
        lengths = build_length_policy(spec, process)(scene, torch.Generator()).n_tokens
        assert lengths.min() >= 2
        assert lengths.max() <= 6
        assert lengths.sum() <= 12
        assert torch.equal(process.token_range.clip_paths(lengths), lengths)
    with pytest.raises(ValueError, match=r"Expected a mean length in 2…16, got 1"):
        build_length_policy("budget:1", process)
