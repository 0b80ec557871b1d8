"""Advantages against slow references, and the enumerated gradient against sampling and brute force."""

import itertools
import statistics
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.agents import GRPO
from vaportok_rl.agents.grpo.credit import CreditRule
from vaportok_rl.agents.grpo.rollout import SceneRollout
from vaportok_rl.agents.objective import decoupled_advantage, group_advantage
from vaportok_rl.envs import (
    OutcomeOfAllLengths,
    RewardResult,
    Scene,
    TaildropProcess,
    TaildropVecEnv,
    TokenRange,
    VaporReward,
)
from vaportok_rl.runtime.ranks import Processes

K = 4


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 4), st.integers(1, 3))
def test_gdpo_is_the_paper(seed: int, group: int, scenes: int, terms: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, weights = rng.normal(size=(terms, group, scenes)) * rng.uniform(0.1, 100), rng.normal(size=terms)
    summed = np.zeros((group, scenes))
    for m, g, p in np.ndindex(terms, group, scenes):
        column = rewards[m, :, p].tolist()
        summed[g, p] += weights[m] * (rewards[m, g, p] - statistics.fmean(column)) / (statistics.stdev(column) + 1e-4)
    flat = summed.flatten().tolist()
    expected = (summed - statistics.fmean(flat)) / (statistics.stdev(flat) + 1e-4)
    got = decoupled_advantage(torch.from_numpy(rewards), torch.from_numpy(weights))
    assert got.numpy() == pytest.approx(expected, abs=1e-8)


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 4))
def test_batch_and_no_scaling(seed: int, group: int, scenes: int) -> None:
    rewards = np.random.default_rng(seed).normal(size=(group, scenes)) * 3
    everything = statistics.stdev(rewards.flatten().tolist())
    batch = group_advantage(torch.from_numpy(rewards), 1e-4, "batch").numpy()
    none = group_advantage(torch.from_numpy(rewards), 1e-4, "none").numpy()
    for g, p in np.ndindex(group, scenes):
        centred = rewards[g, p] - statistics.fmean(rewards[:, p].tolist())
        assert none[g, p] == pytest.approx(centred, abs=1e-9)
        assert batch[g, p] == pytest.approx(centred / (everything + 1e-4), abs=1e-9)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_flat_groups_have_no_advantage_whatever_the_scale(scale: Any) -> None:
    rewards = torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]])
    assert group_advantage(rewards, scale=scale)[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert decoupled_advantage(torch.stack([rewards, 5 * rewards]), torch.ones(2))[:, 0].tolist() == [0.0, 0.0, 0.0]


def all_lengths(scenes: int, clips: int, seed: int) -> OutcomeOfAllLengths:
    """Random outcomes of all lengths, in float64."""
    rng = torch.Generator().manual_seed(seed)
    shape = (K, scenes, clips)
    lengths = torch.arange(1, K + 1)[:, None, None].expand(shape)
    mse, accuracy = (torch.rand(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    scene = Scene.bare(torch.zeros(scenes, clips, K, dtype=torch.int64), torch.zeros(scenes, clips, 2))
    return OutcomeOfAllLengths(scene, lengths, mse, accuracy)


def judge(allowed: TokenRange, reward: VaporReward) -> Any:
    """`TaildropProcess.judge` of a process that has a token range and a reward, and no clips."""
    return partial(TaildropProcess.judge, SimpleNamespace(token_range=allowed, reward=reward))


REWARD = VaporReward({"diversity": 2.0}, scale=1.0)
# All with weight 1.
CLIP_TERMS = ("efficiency", "penalty", "reconstruction", "generation")
RANGES = {"free": TokenRange(K, 2), "budget": TokenRange(K, 2, minimum=1, budget=5), "range": TokenRange(K, 2, 2, 3)}


@pytest.mark.parametrize("credit", ["path", "clip"])
@pytest.mark.parametrize("allowed", RANGES.values(), ids=RANGES)
def test_conditional_rewards_are_those_of_the_changed_paths(credit: Any, allowed: TokenRange) -> None:
    every = all_lengths(scenes=3, clips=2, seed=0)
    actions = torch.from_numpy(np.random.default_rng(0).integers(0, K, (5, 3, 2)))
    signals, weights = CreditRule(credit).conditional_signals(every, actions, judge(allowed, REWARD))
    assert signals.shape == (1, 5, 3, 2, K)
    assert weights.tolist() == [1.0]
    for g, p, j, a in np.ndindex(5, 3, 2, K):
        path = actions.clone()
        path[g, p, j] = a
        result = REWARD(every.take(allowed.clip_paths(path + 1)))
        others = 0.0 if credit == "path" else sum(result.raw[name][g, p, 1 - j].item() for name in CLIP_TERMS) / 2
        expected = result.total[g, p] - others
        assert signals[0, g, p, j, a].item() == pytest.approx(expected.item(), abs=1e-6)


# With a budget, a length also affects later clips, which only path credit accounts for.
@pytest.mark.parametrize(
    ("credit", "allowed"),
    [("path", RANGES["free"]), ("path", RANGES["budget"]), ("path", RANGES["range"]), ("clip", RANGES["free"]),
     ("clip", RANGES["range"])],
)  # fmt: skip
def test_over_all_paths_the_enumerated_gradient_is_exact(credit: Any, allowed: TokenRange) -> None:
    # With all paths of the group in proportion, the conditional expectation is the expectation: the gradient is
    # that of the expected reward, found here by differentiating the sum over all paths.
    every = all_lengths(scenes=1, clips=2, seed=1)
    logits = torch.randn(1, 2, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(-1)
    actions = torch.tensor(list(itertools.product(range(K), repeat=2)))[:, None]
    rewards = REWARD(every.take(allowed.clip_paths(actions + 1))).total[:, 0].double()
    chances = torch.stack([log_p[0, 0, a] + log_p[0, 1, b] for a, b in actions[:, 0].tolist()]).exp()
    (expected,) = torch.autograd.grad((chances * rewards).sum(), logits, retain_graph=True)

    rule = CreditRule(credit, scale_rewards="none")
    conditional = rule.conditional_signals(every, actions, judge(allowed, REWARD))
    whole = REWARD(every.take(allowed.clip_paths(actions + 1)))
    advantage = rule.exact_advantage(conditional, log_p.detach(), whole, Processes())
    weighted = (log_p.detach().exp() * log_p * advantage).sum((-1, -2, -3))  # ∇ of Σ π_old · log π · A, by path
    (got,) = torch.autograd.grad((chances.detach() * weighted).sum(), logits)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_scale_of_the_enumerated_advantage_is_the_groups_deviation() -> None:
    # Without terms that couple clips, the summed conditional variances are the variance of the path reward.
    every, allowed = all_lengths(scenes=2, clips=2, seed=3), RANGES["free"]
    reward = REWARD.with_weights({"diversity": 0})
    log_p = torch.randn(2, 2, K, generator=torch.Generator().manual_seed(4), dtype=torch.float64).log_softmax(-1)
    actions = torch.zeros(2, 2, 2, dtype=torch.int64)
    plain, scaled = (CreditRule(scale_rewards=scale, eps=0.0) for scale in ("none", "group"))
    conditional = plain.conditional_signals(every, actions, judge(allowed, reward))
    sampled = reward(every.take(actions + 1))
    ratio = plain.exact_advantage(conditional, log_p, sampled, Processes()) / scaled.exact_advantage(
        conditional, log_p, sampled, Processes()
    )
    for p in range(2):
        paths = torch.tensor(list(itertools.product(range(K), repeat=2)))[:, None].expand(-1, 2, -1)
        totals = reward(every.take(paths + 1)).total[:, p].double()
        chances = (log_p[p, 0][paths[:, 0, 0]] + log_p[p, 1][paths[:, 0, 1]]).exp()
        mean = (chances * totals).sum()
        deviation = (chances * (totals - mean) ** 2).sum().sqrt().item()
        assert ratio[:, p].flatten().tolist() == pytest.approx([deviation] * ratio[:, p].numel(), rel=1e-4)


def policy_gradient(model: GRPO, rounds: int) -> Tensor:
    """Mean gradient of the head's bias over rounds on the same policy."""
    found = []
    for _ in range(rounds):
        rollout: Any = model.collect()
        loss, _ = model.loss(rollout, model.advantages(rollout), torch.arange(model.scenes))
        found.append(torch.autograd.grad(loss, model.policy.action_net.bias)[0])
        model.rounds += 1
    return torch.stack(found)


@pytest.mark.parametrize("credit", ["path", "clip"])
def test_the_enumerated_gradient_is_the_mean_of_the_sampled_one(tiny_world: str, credit: Any) -> None:
    gradients = {}
    for gradient in ("sampled", "enumerated"):
        env = TaildropVecEnv(4 * 16, group_size=16, path_length=2, tokenizer=tiny_world)
        options: dict[str, Any] = {"gradient": gradient, "credit": credit, "scale_rewards": "none", "kl_coef": 0.0}
        gradients[gradient] = policy_gradient(GRPO(env=env, seed=1, **options), 30)
    sampled, exact = gradients["sampled"] * 16 / 15, gradients["enumerated"]  # the group's mean is its own baseline
    error = (sampled - exact).std(0) / 30**0.5
    assert ((sampled.mean(0) - exact.mean(0)).abs() <= 5 * error + 1e-6).all()
    assert exact.std(0).mean() < sampled.std(0).mean()


@pytest.mark.parametrize("credit", ["path", "clip"])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_every_combination_learns_to_keep_few_tokens(
    tiny_world: str, credit: Any, aggregation: Any, scale: Any
) -> None:
    if aggregation == "normalize_then_sum" and scale != "group":
        return
    only = {"weights": {"efficiency": 1, "penalty": 0, "diversity": 0, "reconstruction": 0, "generation": 0}}
    env = TaildropVecEnv(16, group_size=4, path_length=2, tokenizer=tiny_world, reward=only)
    model = GRPO(
        env=env,
        learning_rate=3e-3,
        kl_coef=0.0,
        seed=0,
        credit=credit,
        gradient="enumerated",
        reward_aggregation=aggregation,
        scale_rewards=scale,
    )
    rollout: Any = model.collect()
    before = rollout.outcome.n_tokens.float().mean()
    model.learn(32 * 12)
    rollout = model.collect()
    assert rollout.outcome.n_tokens.float().mean() < 0.7 * before


def test_signals_of_paths_and_clips() -> None:
    raw = {"clip": torch.rand(3, 2, 4), "path": torch.rand(3, 2)}
    rewards = RewardResult(raw, {"clip": 2.0, "path": -1.0}, 4)
    (summed,), _ = CreditRule("path").signals(rewards)
    assert torch.allclose(summed[..., 0], rewards.total)
    (summed,), _ = CreditRule("clip").signals(rewards)
    assert torch.allclose(summed, 2 * raw["clip"] / 4 - raw["path"][..., None])


def test_candidates_are_compared_evenly_whatever_the_policy(tiny_world: str) -> None:
    env = TaildropVecEnv(8, group_size=4, tokenizer=tiny_world, path_length=2)
    model = GRPO(env=env, seed=0, gradient="candidates", kl_coef=0.0, clip_range=9.0, clip_range_high=9.0)
    rollout = model.collect()
    assert isinstance(rollout, SceneRollout)
    assert rollout.every is not None
    advantage = model.advantages(rollout)
    lengths = torch.tensor([4, 8, 12, 16])
    rule, judge = CreditRule("clip"), model.vector_env.process.judge
    earned = rule.conditional_signals(rollout.every, rollout.actions, judge)[0][0][..., lengths - 1]
    expected = (earned - earned.mean(-1, keepdim=True)) / (earned.std(-1, keepdim=True) + 1e-4)
    weight = rollout.old_log_p.exp()[..., lengths - 1]
    assert torch.allclose(advantage[..., lengths - 1] * weight * 4, expected, atol=1e-4)
    others = torch.ones(16, dtype=torch.bool).index_fill(0, lengths - 1, False)
    assert (advantage[..., others] == 0).all()
