"""Weights on a schedule against environments with fixed weights; path scalarisations against the tensor face."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from vaportok_rl.envs import TaildropEnv, TaildropVectorEnv, VaporReward
from vaportok_rl.envs.rewards.wrappers import (
    CurriculumWeights,
    LearnedScalarisation,
    VectorCurriculumWeights,
    VectorLearnedScalarisation,
)

LENGTH, ENVS, GROUP, TOKENS = 3, 4, 2, 16


def scalar(tiny_world: str, **settings: Any) -> TaildropEnv:
    return TaildropEnv(**{"tokenizer": tiny_world, "path_length": LENGTH, **settings})


def vector(tiny_world: str, **settings: Any) -> TaildropVectorEnv:
    return TaildropVectorEnv(ENVS, group_size=GROUP, **{"tokenizer": tiny_world, "path_length": LENGTH, **settings})


def ramp(decisions: int) -> dict[str, float]:
    return {"efficiency": decisions / 4, "diversity": 2.0 - decisions}


def test_each_decision_is_paid_with_the_weights_of_its_time(tiny_world: str) -> None:
    env = CurriculumWeights(scalar(tiny_world), ramp)
    actions = np.random.default_rng(0).integers(0, TOKENS, 2 * LENGTH)
    paid = []
    for episode in range(2):
        env.reset(seed=episode)
        paid += [float(env.step(action)[1]) for action in actions[episode * LENGTH :][:LENGTH]]
    assert env.decisions == 2 * LENGTH
    for decision, reward in enumerate(paid):
        fixed = scalar(tiny_world, reward={"weights": ramp(decision)})
        episode, step = divmod(decision, LENGTH)
        fixed.reset(seed=episode)
        expected = [fixed.step(action)[1] for action in actions[episode * LENGTH :][: step + 1]][-1]
        assert reward == expected


def test_vector_steps_count_every_environment(tiny_world: str) -> None:
    asked = []

    def schedule(decisions: int) -> dict[str, float]:
        asked.append(decisions)
        return ramp(decisions)

    env = VectorCurriculumWeights(vector(tiny_world), schedule)
    env.reset(seed=1)
    actions = np.random.default_rng(1).integers(0, TOKENS, (LENGTH, ENVS))
    paid = [env.step(row)[1] for row in actions]
    assert env.decisions == LENGTH * ENVS
    assert asked == [0, 0, ENVS, 2 * ENVS]
    for step in range(LENGTH):
        fixed = vector(tiny_world, reward={"weights": ramp(step * ENVS)})
        fixed.reset(seed=1)
        assert np.array_equal([fixed.step(row)[1] for row in actions[: step + 1]][-1], paid[step])


def test_a_shared_reward_is_left_alone(tiny_world: str) -> None:
    reward = VaporReward()
    env = CurriculumWeights(scalar(tiny_world, reward=reward), lambda _: {"efficiency": 7.0})
    assert env.unwrapped.process.reward.weights["efficiency"] == 7
    assert reward.weights["efficiency"] == 1


def test_a_refused_action_is_no_decision(tiny_world: str) -> None:
    env = CurriculumWeights(scalar(tiny_world), ramp)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="got"):
        env.step(TOKENS)
    assert env.decisions == 0


def test_wrong_schedules_are_refused(tiny_world: str) -> None:
    with pytest.raises(ValueError, match="unknown term 'eficiency'; did you mean 'efficiency'"):
        CurriculumWeights(scalar(tiny_world), lambda _: {"eficiency": 1.0})
    env = VectorCurriculumWeights(vector(tiny_world), lambda decisions: {"penalty": float("nan") if decisions else 1.0})
    env.reset(seed=0)
    env.step(np.zeros(ENVS, dtype=np.int64))
    with pytest.raises(ValueError, match="finite weight for 'penalty', got nan"):
        env.step(np.zeros(ENVS, dtype=np.int64))


def test_only_taildrop_environments_are_wrapped(tiny_world: str) -> None:
    pole = gymnasium.make("CartPole-v1")
    many = SyncVectorEnv([lambda: scalar(tiny_world)])
    for env, wrapper in (
        (pole, CurriculumWeights),
        (pole, LearnedScalarisation),
        (many, VectorCurriculumWeights),
        (many, VectorLearnedScalarisation),
    ):
        with pytest.raises(ValueError, match="Expected a Taildrop environment"):
            wrapper(env, ramp)  # type: ignore[operator]
    inside = SyncVectorEnv([lambda: CurriculumWeights(scalar(tiny_world), ramp)])
    inside.reset(seed=0)
    assert inside.step(np.array([3]))[1].shape == (1,)


def test_the_reward_vector_has_no_curriculum(tiny_world: str) -> None:
    env = scalar(tiny_world)
    env.reward_space = gymnasium.spaces.Box(-1, 1, (5,))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"Expected an environment with a scalar reward.*use vaportok/Taildrop-v0"):
        CurriculumWeights(env, ramp)


def crooked(terms: Mapping[str, Any]) -> Any:
    """Not linear in the terms, so that it can only be computed from a whole path."""
    return np.exp(terms["efficiency"]) * terms["diversity"] + terms["reconstruction"] ** 2 - terms["worst"]


TERMS = {"worst": lambda outcome: outcome.psnr.amin(-1) / 10}


def test_scalarisation_is_paid_at_the_end(tiny_world: str) -> None:
    plain = scalar(tiny_world, reward={"terms": TERMS})
    env = LearnedScalarisation(scalar(tiny_world, reward={"terms": TERMS}), crooked)
    actions = np.random.default_rng(4).integers(0, TOKENS, (3, LENGTH))
    # An abandoned path leaves nothing behind.
    env.reset(seed=9)
    env.step(actions[0, 0])
    for episode in range(3):
        env.reset(seed=episode)
        plain.reset(seed=episode)
        steps = [env.step(action) for action in actions[episode]]
        infos = [plain.step(action)[-1]["reward_terms"] for action in actions[episode]]
        terms = {name: np.mean([float(info[name]) for info in infos]) for name in ("efficiency", "reconstruction")}
        terms |= {name: float(infos[-1][name]) for name in ("diversity", "worst")}
        assert [reward for _, reward, *_ in steps[:-1]] == [0.0] * (LENGTH - 1)
        assert steps[-1][1] == pytest.approx(crooked(terms), abs=1e-5)
        assert steps[-1][2]


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_vector_scalarisation_is_that_of_the_scalar_environments(tiny_world: str, mode: str) -> None:
    settings = {"reward": {"terms": TERMS}}
    env = VectorLearnedScalarisation(vector(tiny_world, autoreset_mode=mode, **settings), crooked)
    env.reset(seed=20)
    # The second group begins anew after one step and then lags behind the first.
    generator = np.random.default_rng(6)
    first = generator.integers(0, TOKENS, ENVS)
    env.step(first)
    lagging = np.repeat([False, True], GROUP)
    env.reset(options={"reset_mask": lagging})
    actions = generator.integers(0, TOKENS, (LENGTH, ENVS))
    rewards = np.zeros((LENGTH, ENVS))
    for step, row in enumerate(actions):
        _, rewards[step], terminated, _, _ = env.step(row)
        assert rewards.dtype == np.float64
        assert terminated.tolist() == [step == LENGTH - 2] * GROUP + [step == LENGTH - 1] * GROUP
        if mode == "Disabled" and terminated.any():
            env.reset(options={"reset_mask": terminated})
    for index in range(ENVS):
        single = LearnedScalarisation(scalar(tiny_world, **settings), crooked)
        single.reset(seed=20 + index // GROUP)
        if lagging[index]:
            single.step(first[index])
            single.reset()
            walked = actions[:, index]
            expected = [float(single.step(action)[1]) for action in walked]
        else:
            walked = np.r_[first[index], actions[: LENGTH - 1, index]]
            expected = [float(single.step(action)[1]) for action in walked][1:]
        assert rewards[: len(expected), index].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scalarise", "message"),
    [
        (lambda terms: 1.0, r"shape \(4,\), got array\(1\.\)"),
        (lambda terms: terms["efficiency"][:1], r"one finite number a path, shape \(4,\)"),
        (lambda terms: terms["efficiency"] * np.nan, "got array.*nan"),
    ],
    ids=["one for all", "too few", "NaN"],
)
def test_a_wrong_scalarisation_is_refused(tiny_world: str, scalarise: Any, message: str) -> None:
    env = VectorLearnedScalarisation(vector(tiny_world, path_length=1), scalarise)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(np.zeros(ENVS, dtype=np.int64))


def test_a_linear_scalarisation_is_the_weighted_reward(tiny_world: str) -> None:
    weights = {"efficiency": 2.0, "penalty": 0.5, "diversity": -1.0, "reconstruction": 3.0, "generation": 0.25}

    def linear(terms: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        return sum((weights[name] * value for name, value in terms.items()), np.zeros(1))

    learned = LearnedScalarisation(scalar(tiny_world), linear)
    weighted = scalar(tiny_world, reward={"weights": weights})
    returns = []
    for env in (learned, weighted):
        env.reset(seed=5)
        returns.append(sum(float(env.step(action)[1]) for action in (0, 7, 15)))
    assert returns[0] == pytest.approx(returns[1], abs=1e-6)
