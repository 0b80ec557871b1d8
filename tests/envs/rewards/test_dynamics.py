"""Schedules, a constraint's multiplier and a scalarisation work the same in all environment classes."""

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.logger import configure
from torch import Tensor

from vaportok_rl.agents import GRPO, HeldOut, TaildropPolicy, oracle_lengths
from vaportok_rl.envs import (
    CurriculumWeights,
    LearnedScalarisation,
    MOTaildropEnv,
    TaildropEnv,
    TaildropProcess,
    TaildropVecEnv,
    TaildropVectorEnv,
    VaporReward,
)
from vaportok_rl.envs.rewards import Constraint, Ramp
from vaportok_rl.envs.rewards.contract import mixed_lengths, synthetic_outcome

OFF = dict.fromkeys(VaporReward().names, 0.0)
RAMP = Ramp(0.0, 3.0, 8, 24)


def outcome() -> Any:
    return synthetic_outcome(mixed_lengths(4, 16), 16, "cpu", [])


def test_a_ramp() -> None:
    assert [RAMP(decisions) for decisions in (0, 8, 12, 16, 24, 99)] == [0, 0, 0.75, 1.5, 3, 3]
    assert VaporReward({"efficiency": str(RAMP)}).weights["efficiency"] == RAMP
    assert VaporReward({"efficiency": "-2.5e-1"}).weights["efficiency"] == -0.25
    assert VaporReward({"efficiency": RAMP}).describe()["weights"]["efficiency"] == "0:3@8:24"
    for bad in ("0:3@24:8", "0:3", "x:3@1:2"):
        with pytest.raises(ValueError, match="Expected a"):
            VaporReward({"efficiency": bad})
    with pytest.raises(ValueError, match="finite weight for 'efficiency', got nan"):
        VaporReward({"efficiency": lambda decisions: float("nan")})


@pytest.mark.parametrize("face", ["scalar", "vector", "grpo"])
def test_a_schedule_goes_by_the_decisions_of_training(tiny_world: str, face: str) -> None:
    reward = VaporReward({"efficiency": RAMP, "penalty": lambda decisions: float(decisions)})
    settings: Any = {"tokenizer": tiny_world, "path_length": 4, "reward": reward}
    counts = []
    if face == "grpo":
        model = GRPO(env=TaildropVecEnv(8, group_size=4, **settings), seed=0, n_epochs=1)
        model.learn(32, callback=lambda shown, _: counts.append(reward.state.decisions) is None)
        assert sorted(set(counts)) == [0]  # the paths of a round are paid by the weights at its start
        assert reward.state.decisions == 32
    else:
        env: Any = TaildropEnv(**settings) if face == "scalar" else TaildropVectorEnv(2, **settings)
        members = 1 if face == "scalar" else 2
        env.reset(seed=0)
        for step in range(4):
            weights = {**VaporReward().weights, "efficiency": RAMP(members * step), "penalty": members * step}
            actions = 3 if face == "scalar" else np.full(2, 3)
            _, paid, _, _, info = env.step(actions)
            terms = info.get("final_info", info)["reward_terms"]
            share = {name: 1.0 if name == "diversity" else 1 / 4 for name in weights}
            expected = sum(weights[name] * share[name] * np.asarray(terms[name]) for name in weights)
            assert paid == pytest.approx(expected, abs=1e-6)
        assert reward.state.decisions == 4 * members
        assert reward.weights_now()["efficiency"] == RAMP(4 * members)
        # Held-out environments read the schedule and do not move it; a copy moves its own.
        held_out = TaildropEnv(**settings, split="test")
        twin = copy.deepcopy(env)
        for other in (held_out, twin):
            other.reset(seed=1)
            other.step(actions if other is twin else 3)
        assert reward.state.decisions == 4 * members
        assert twin.process.reward.state.decisions == 5 * members


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokens<=20", Constraint("tokens", True, 20.0, 1.0)),
        (" psnr >= 24.5", Constraint("psnr", False, 24.5, 1.0)),
        ("mse<=5e-3", Constraint("mse", True, 0.005, 1.0)),
    ],
)
def test_a_constraint_is_read(text: str, expected: Constraint) -> None:
    assert VaporReward(constraint=text).held == expected


@pytest.mark.parametrize("text", ["tokens", "tokens=20", "tokens<20", "token<=20", "<=20", "tokens<=many"])
def test_a_constraint_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a constraint"):
        VaporReward(constraint=text)


def test_dual_ascent() -> None:
    reward = VaporReward(constraint="tokens<=5", constraint_rate=2.0)
    scored = outcome()
    before = reward(scored)
    violation = (scored.n_tokens.float().mean() - 5) / 5
    assert torch.equal(before.total, VaporReward()(scored).total)  # the multiplier begins at 0
    assert torch.allclose(-before.terms["constraint_tokens"], (scored.n_tokens.float().mean(-1) - 5) / 5)
    reward.advance(before, scored.n_tokens.numel())
    multiplier = 2.0 * scored.n_tokens.numel() / 1000 * violation
    after = reward(scored)
    assert reward.state.as_numbers()["multiplier"] == pytest.approx(float(multiplier))
    assert torch.allclose(after.total, before.total + multiplier * before.terms["constraint_tokens"])
    assert torch.allclose(after.per_decision.sum(-1), after.total, atol=1e-5)
    assert torch.allclose(after.weight_vector, torch.tensor([*[1.0] * 5, float(multiplier)]))
    # A bound that is kept lets it fall, not below 0.
    short = replace(scored, n_tokens=torch.ones_like(scored.n_tokens))
    for _ in range(200):
        reward.advance(reward(short), short.n_tokens.numel())
    assert reward.state.as_numbers()["multiplier"] == 0
    for copied in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert copied.state.as_numbers() == reward.state.as_numbers()
        assert copied.describe() == reward.describe()


def test_the_cost_in_info(tiny_world: str) -> None:
    for text, sign in (("tokens<=5", 1), ("psnr>=20", -1)):
        reward = VaporReward(constraint=text)
        env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2, reward=reward)
        env.reset(seed=0)
        infos = []
        for actions in ([0, 15, 3, 3], [15, 2, 8, 1]):
            info = env.step(np.array(actions))[-1]
            infos.append(info.get("final_info", info))
        for info in infos:
            measured = info["n_tokens" if "tokens" in text else "psnr"]
            assert info["cost"] == pytest.approx(sign * measured / 2)
        limit = reward.held.limit if reward.held else 0
        violation = (sum(info["cost"] for info in infos).mean() - limit) / abs(limit)
        assert reward.state.as_numbers()["violation"] == pytest.approx(violation, rel=1e-5)
        assert reward.state.as_numbers()["multiplier"] == pytest.approx(max(0, violation) * 8 / 1000, rel=1e-5)


@pytest.mark.parametrize("algorithm", ["grpo", "a2c"])
def test_a_constraint_is_learnt_logged_saved_and_restored(tiny_world: str, tmp_path: Path, algorithm: str) -> None:
    reward = VaporReward({**OFF, "reconstruction": 1.0}, constraint="tokens<=4", constraint_rate=200.0)
    settings: Any = {"tokenizer": tiny_world, "path_length": 2, "reward": reward}
    env = TaildropVecEnv(16, group_size=8, **settings)
    held_out = HeldOut(TaildropProcess(**settings, split="test"), scenes=3)
    lengths = torch.full((3, 2), 9)
    before = held_out.evaluate(lengths).reward
    model: Any
    if algorithm == "grpo":
        model = GRPO(env=env, seed=0, learning_rate=3e-3)
        model.set_logger(configure(str(tmp_path), ["json"]))
    else:
        model = A2C(TaildropPolicy, env, n_steps=2, seed=0, gamma=1.0, policy_kwargs={"tokenizer": tiny_world})
    model.learn(96, log_interval=1)
    state = reward.state.as_numbers()
    assert state["decisions"] == 96
    assert state["multiplier"] > 1
    # Held-out scenes are judged by the multiplier that was learnt.
    violation = (9 - 4) / 4
    assert held_out.evaluate(lengths).reward == pytest.approx(before - state["multiplier"] * violation, rel=1e-4)
    assert held_out.bounds.oracle.metrics()["tokens"] < 9
    if algorithm == "grpo":
        model.logger.close()
        logged = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
        assert logged[0]["constraint/tokens/multiplier"] == 0
        assert logged[-1]["constraint/tokens/multiplier"] > 0
        assert logged[-1]["constraint/tokens/violation"] == pytest.approx(state["violation"], rel=1e-4)
        model.save(tmp_path / "agent.zip")
        fresh = replace(reward)
        assert fresh.state.as_numbers()["multiplier"] == 0
        again = TaildropVecEnv(16, group_size=8, **{**settings, "reward": fresh})
        GRPO.load(tmp_path / "agent.zip", env=again)
        assert fresh.state.as_numbers() == state


def crooked(terms: Mapping[str, Tensor]) -> Tensor:
    return terms["efficiency"] * terms["reconstruction"].exp()


def test_a_scalarisation_is_a_path_term_of_weight_one(tiny_world: str) -> None:
    reward = VaporReward(scalarise=crooked)
    scored = outcome()
    result = reward(scored)
    expected = crooked(VaporReward()(scored).terms)
    assert torch.equal(result.total, expected)
    assert not result.per_decision[..., :-1].any()
    assert {name for name, weight in reward.weights_now().items() if weight} == {"scalarised"}
    writes = VaporReward(scalarise=lambda terms: terms["diversity"].mul_(2))(scored)
    assert torch.equal(writes.raw["diversity"], result.raw["diversity"])
    # Linear terms on top of it, if they are asked for.
    more = VaporReward({"penalty": 2.0}, scalarise=crooked)(scored)
    assert torch.allclose(more.total, expected + 2 * more.terms["penalty"])
    env = MOTaildropEnv(tokenizer=tiny_world, path_length=2, reward=reward)
    env.reset(seed=0)
    paid = [env.step(action)[1] for action in (3, 9)]
    assert (sum(paid) @ env.reward_weights) == pytest.approx(paid[1][-1])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda terms: terms["efficiency"].mean(), r"'scalarised' to return a tensor"),
        (lambda terms: terms["efficiency"] - terms["efficiency"].mean(), "score each path by itself"),
        (lambda terms: terms["sharpness"], "got KeyError: 'sharpness'"),
        (lambda terms: (terms["efficiency"] - 1).sqrt(), "to be finite"),
        ("no_such_module:f", "got ModuleNotFoundError"),
        (3, "scalarise as a function"),
    ],
)
def test_a_bad_scalarisation_is_refused(tiny_world: str, function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaildropEnv(tokenizer=tiny_world, path_length=3, reward={"scalarise": function})


def test_grpo_trains_the_reward_that_the_environment_has(tiny_world: str) -> None:
    env: Any = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tiny_world, path_length=2)
    env.unwrapped.process.reward = VaporReward(scalarise=crooked, constraint="tokens<=3")
    model = GRPO(env=env, group_size=2, scenes=1)
    assert model.vector_env.process.reward is env.unwrapped.process.reward


def test_the_wrappers_of_earlier_versions_change_the_reward(tiny_world: str) -> None:
    made = [TaildropEnv(tokenizer=tiny_world, path_length=2), TaildropVectorEnv(2, tokenizer=tiny_world, path_length=2)]
    for env in made:
        assert CurriculumWeights(env, lambda decisions: {"efficiency": float(decisions)}) is env
        assert env.process.reward.weights_now()["efficiency"] == 0
        LearnedScalarisation(env, lambda terms: np.full_like(terms["efficiency"], -7.0))
        env.reset(seed=0)
        actions: Any = 3 if env is made[0] else [3, 3]
        assert [np.ravel(env.step(actions)[1]).tolist()[0] for _ in range(2)] == [0, -7]
    with pytest.raises(ValueError, match="Expected a Taildrop environment"):
        CurriculumWeights(gymnasium.make("CartPole-v1"), lambda _: {})
    with pytest.raises(ValueError, match="unknown term 'eficiency'"):
        CurriculumWeights(made[0], lambda _: {"eficiency": 1.0})


@pytest.mark.parametrize("reward", [VaporReward(scalarise=crooked), VaporReward(constraint="tokens<=4")])
def test_the_oracle_maximises_what_is_paid(tiny_world: str, reward: VaporReward) -> None:
    held_out = HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=2, split="test"), scenes=2)
    reward.restore({"multiplier": 5.0})
    best = reward(held_out.every.take(oracle_lengths(held_out.every, reward)[None])).total[0]
    every = torch.cartesian_prod(torch.arange(1, 17), torch.arange(1, 17))[:, None].expand(-1, 2, -1)
    assert torch.allclose(reward(held_out.every.take(every.contiguous())).total.amax(0), best, atol=1e-5)


def test_what_is_not_finite_is_named(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=2, reward={"terms": {"mine": lambda outcome: outcome.mse * 1}})
    env.reset(seed=0)
    clip = int(env.step(3)[4]["clip_id"])
    broken = VaporReward(terms={"mine": lambda outcome: outcome.mse / (outcome.n_tokens - 5)})
    env.process.reward = broken
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"got inf from 'mine' for clip {clip} at n_tokens = 5"):
        env.step(4)
    held_out = HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=2, split="test"), scenes=2)
    held_out.process.reward = broken
    with pytest.raises(ValueError, match=r"from 'mine' for clip .* at n_tokens = 5"):
        held_out.evaluate(torch.full((2, 2), 5))
