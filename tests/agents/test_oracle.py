"""The oracle against brute force, and never below any other policy."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaportok_rl.agents.oracle import best_fixed_length, best_spending, oracle_lengths
from vaportok_rl.envs import DEFAULT_WEIGHTS, OutcomeOfAllLengths, Scene, VaporReward
from vaportok_rl.envs.token_range import Purse, TokenRange

OFF = dict.fromkeys(DEFAULT_WEIGHTS, 0.0)


def every_length(seed: int, tokens: int, paths: int, length: int) -> OutcomeOfAllLengths:
    """An outcome of all lengths whose errors mostly fall with n, as a tokenizer's do, and whose clips differ."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(0.05, (tokens, paths, length)) * rng.exponential(1.0, (paths, length))
    mse = torch.from_numpy(np.cumsum(steps, 0)[::-1].copy()).float() + 0.01
    accuracy = torch.from_numpy(rng.random((tokens, paths, length), dtype=np.float32))
    accuracy[0] = 0
    lengths = torch.arange(1, tokens + 1)[:, None, None].expand(tokens, paths, length)
    complexity = torch.from_numpy(rng.random((paths, length, 2), dtype=np.float32))
    scene = Scene.bare(torch.zeros(paths, length, tokens, dtype=torch.int64), complexity)
    return OutcomeOfAllLengths(scene, lengths, mse, accuracy)


def earned(every: OutcomeOfAllLengths, reward: VaporReward, lengths: torch.Tensor) -> list[float]:
    return reward(every.take(lengths[None])).total[0].tolist()


def brute_force(
    every: OutcomeOfAllLengths, reward: VaporReward, allowed: TokenRange, worst: bool = False
) -> list[float]:
    """The best path reward of every combination of allowed lengths, path by path."""
    tokens, paths, length = every.n_tokens.shape
    choices = torch.tensor(list(product(range(1, tokens + 1), repeat=length)))
    choices = choices[(allowed.clip_paths(choices) == choices).all(1)]
    total = reward(every.take(choices[:, None].expand(-1, paths, -1).contiguous())).total
    return (total.amin(0) if worst else total.amax(0)).tolist()


@st.composite
def ranges(draw: st.DrawFn) -> TokenRange:
    length, tokens = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    minimum = draw(st.integers(1, 2))
    spare = draw(st.none() | st.integers(0, 12))
    budget = None if spare is None else minimum * length + spare
    return TokenRange(tokens, length, minimum, draw(st.none() | st.integers(minimum, tokens)), budget)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), ranges(), st.booleans())
def test_exact_where_clips_do_not_interact(seed: int, allowed: TokenRange, worst: bool) -> None:
    every = every_length(seed, allowed.tokens, 3, allowed.path_length)
    reward = VaporReward({"diversity": 0.0})
    lengths = oracle_lengths(every, reward, worst=worst, allowed=allowed)
    assert lengths.shape == (3, allowed.path_length)
    assert lengths.dtype == torch.int64
    assert torch.equal(allowed.clip_paths(lengths), lengths)
    assert earned(every, reward, lengths) == pytest.approx(brute_force(every, reward, allowed, worst), abs=1e-5)


RANGES = [TokenRange(tokens, length) for tokens in (4, 6) for length in (2, 3)]
RANGES += [TokenRange(6, 3, 1, 5, budget) for budget in (None, 6, 9, 12)]


@pytest.mark.parametrize("allowed", RANGES, ids=str)
@pytest.mark.parametrize("weight", [-2.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("preset", ["balanced", "spread"])
def test_against_brute_force_with_diversity(allowed: TokenRange, weight: float, preset: Any) -> None:
    reward = VaporReward({"diversity": weight}, scale=5.0, preset=preset)
    gaps, spans = [], []
    for seed in range(8):
        every = every_length(seed, allowed.tokens, 4, allowed.path_length)
        best, worst = (np.array(brute_force(every, reward, allowed, lowest)) for lowest in (False, True))
        lengths = oracle_lengths(every, reward, allowed=allowed)
        assert torch.equal(allowed.clip_paths(lengths), lengths)
        found = np.array(earned(every, reward, lengths))
        assert (found <= best + 1e-5).all()
        gaps += (best - found).tolist()
        spans += (best - worst).tolist()
    # Coordinate ascent may stop on a local optimum; it does so rarely and loses little.
    assert sum(gap > 1e-5 for gap in gaps) <= 1
    assert sum(gaps) / sum(spans) < 1e-3


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([{}, {"diversity": 4.0}, {"diversity": -2.0}, {**OFF, "diversity": 1.0}])
)
def test_never_below_any_other_policy(seed: int, weights: dict[str, Any]) -> None:
    tokens, paths, length = 8, 3, 4
    every = every_length(seed, tokens, paths, length)
    reward = VaporReward(weights)
    rng = torch.Generator().manual_seed(seed)
    others = [torch.randint(1, tokens + 1, (paths, length), generator=rng) for _ in range(4)]
    others += [torch.full((paths, length), n) for n in (1, 4, tokens, best_fixed_length(every, reward))]
    best = earned(every, reward, oracle_lengths(every, reward, tuple(others)))
    worst = earned(every, reward, oracle_lengths(every, reward, tuple(others), worst=True))
    for other in others:
        for low, value, high in zip(worst, earned(every, reward, other), best, strict=True):
            assert low - 1e-6 <= value <= high + 1e-6


def test_diversity_alone_is_maximised_by_extremes() -> None:
    every = every_length(0, 8, 3, 4)
    lengths = oracle_lengths(every, VaporReward({**OFF, "diversity": 1.0}, preset="spread"))
    assert [sorted(row) for row in lengths.tolist()] == [[1, 1, 8, 8]] * 3


@pytest.mark.parametrize("allowed", [TokenRange(8, 3), TokenRange(8, 3, 2, 7, 12)], ids=["all", "some"])
def test_best_fixed_length_of_those_allowed(allowed: TokenRange) -> None:
    every, reward = every_length(2, 8, 5, 3), VaporReward()
    kept = [allowed.clip_paths(torch.full((5, 3), n)) for n in range(1, 9)]
    means = [np.mean(earned(every, reward, lengths)) for lengths in kept]
    assert best_fixed_length(every, reward, allowed) == int(np.argmax(means)) + 1


def _spent_best(values: torch.Tensor, purse: Purse) -> list[float]:
    """The highest sum of each path's values over all ways to spend, by trying every one of them."""
    options, paths, length = values.shape
    best = [-np.inf] * paths
    for spending in product(range(options), repeat=length):
        held = purse.start
        for spent in spending:
            if spent > held:
                break
            held = min(purse.capacity, held - spent + purse.income)
        else:
            for path in range(paths):
                total = sum(values[spent, path, clip].item() for clip, spent in enumerate(spending))
                best[path] = max(best[path], total)
    return best


@pytest.mark.parametrize("purse", [Purse(2, 1, 3), Purse(0, 2, 2), Purse(5, 0, 5), Purse(0, 0, 0), Purse(1, 9, 9)])
def test_spending_against_brute_force(purse: Purse) -> None:
    values = torch.from_numpy(np.random.default_rng(purse.capacity).normal(size=(5, 3, 4))).float()
    spent = best_spending(values, purse)
    held = torch.full((3,), purse.start)
    for column in spent.T:
        assert (column <= held).all()
        held = purse.after(held, column)
    total = values.gather(0, spent[None])[0].sum(-1)
    assert total.tolist() == pytest.approx(_spent_best(values, purse), abs=1e-5)
    # What is left is worth more than anything: nothing is spent.
    worth = 100.0 * torch.arange(purse.capacity + 1)
    if purse.income == 0:
        assert not best_spending(values, purse, afterwards=worth).any()
