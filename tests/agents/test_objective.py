"""The GRPO objective against slow loops, finite differences and torch.distributions."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from vaportok_rl.agents.objective import clipped_surrogate, entropy, group_advantage, kl_exact, kl_k3


@settings(deadline=None)
@given(
    st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1e-4, 1e-2, 1.0])
)
def test_advantage_of_each_group(seed: int, group: int, paths: int, length: int, eps: float) -> None:
    rewards = torch.from_numpy(np.random.default_rng(seed).normal(size=(group, paths, length)))
    got = group_advantage(rewards, eps)
    assert got.shape == rewards.shape
    for p in range(paths):
        for j in range(length):
            column = rewards[:, p, j].tolist()
            mean, deviation = statistics.fmean(column), statistics.stdev(column)
            for g in range(group):
                assert got[g, p, j].item() == pytest.approx((column[g] - mean) / (deviation + eps), rel=1e-6)


@given(st.floats(-1e4, 1e4, width=32), st.integers(2, 9))
def test_equal_rewards_have_no_advantage_at_all(value: float, group: int) -> None:
    # float32 means of equal numbers are often off by an ulp; blown up by eps that would be a gradient.
    advantage = group_advantage(torch.full((group, 2), value))
    assert advantage.tolist() == [[0.0, 0.0]] * group


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected groups of at least 2 paths, got 1"):
        group_advantage(torch.zeros(1, 4))


def surrogate_by_hand(ratio: float, advantage: float, low: float, high: float) -> float:
    """min(r A, clip(r, 1 - low, 1 + high) A), case by case."""
    if advantage >= 0:
        return (1 + high) * advantage if ratio > 1 + high else ratio * advantage
    return (1 - low) * advantage if ratio < 1 - low else ratio * advantage


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3)), min_size=1, max_size=12),
    st.floats(0.05, 0.5),
    st.floats(0.05, 0.5),
)
def test_surrogate_is_the_equation(cases: list[tuple[float, float]], low: float, high: float) -> None:
    log_ratio, advantage = torch.tensor(cases, dtype=torch.float64).unbind(1)
    old = torch.linspace(-5, -0.1, len(cases), dtype=torch.float64)
    surrogate = clipped_surrogate(old + log_ratio, old, advantage, low, high)
    for i, (logarithm, value) in enumerate(cases):
        ratio = math.exp(logarithm)
        assert surrogate.ratio[i].item() == pytest.approx(ratio)
        assert surrogate.objective[i].item() == pytest.approx(surrogate_by_hand(ratio, value, low, high), abs=1e-9)
        if min(abs(ratio - 1 + low), abs(ratio - 1 - high)) > 1e-9:
            assert surrogate.clipped_low[i].item() == (ratio < 1 - low and value < 0)
            assert surrogate.clipped_high[i].item() == (ratio > 1 + high and value > 0)


def test_gradient_of_the_surrogate() -> None:
    # Ratios within, below and above the clip range, with advantages of both signs; none at a kink.
    log_ratio = torch.tensor([0.0, 0.1, -0.1, 0.6, 0.6, -0.6, -0.6], dtype=torch.float64)
    advantage = torch.tensor([1.0, -2.0, 1.5, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    old = torch.linspace(-3, -1, 7, dtype=torch.float64)
    log_prob = (old + log_ratio).requires_grad_()

    def objective(values: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(values, old, advantage, 0.2, 0.28).objective

    assert torch.autograd.gradcheck(objective, (log_prob,))
    (gradient,) = torch.autograd.grad(objective(log_prob).sum(), log_prob)
    ratio = log_ratio.exp()
    expected = ratio * advantage
    expected[3] = expected[6] = 0.0  # raised far enough already; lowered far enough already
    assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("delta", [1.5, 3.0])
def test_the_cap_bounds_ratios_with_a_negative_advantage(delta: float) -> None:
    log_ratio = torch.tensor([0.1, 0.3, 0.9, 1.5, 0.9, -0.9], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([-1.0, -2.0, -1.5, -0.5, 2.0, -1.0], dtype=torch.float64)

    def objective(values: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(values, torch.zeros_like(values), advantage, 0.2, 0.28, delta).objective

    assert torch.autograd.gradcheck(objective, (log_ratio,))
    for value, logarithm, weight in zip(objective(log_ratio), log_ratio, advantage, strict=True):
        ratio = math.exp(logarithm.item())
        expected = surrogate_by_hand(ratio, weight.item(), 0.2, 0.28)
        if weight < 0:
            expected = max(expected, delta * weight.item())
        assert value.item() == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_kl_and_entropy_are_those_of_torch_distributions(seed: int, size: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(3, 2, size, generator=rng, dtype=torch.float64) * 2 for _ in range(2))
    p, q = Categorical(logits=first), Categorical(logits=second)
    log_p, log_q = first.log_softmax(-1), second.log_softmax(-1)
    assert torch.allclose(kl_exact(log_p, log_q), kl_divergence(p, q))
    assert torch.allclose(entropy(log_p), p.entropy())
    assert kl_exact(log_p, log_p).abs().max() == 0


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_k3_is_never_negative(log_prob: float, reference: float) -> None:
    value = kl_k3(torch.tensor(log_prob, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)).item()
    assert value >= 0
    assert value == pytest.approx(math.exp(reference - log_prob) - (reference - log_prob) - 1, rel=1e-6, abs=1e-9)
