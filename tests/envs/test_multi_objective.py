"""The reward vector: against the scalar environment, the path's terms, and MO-Gymnasium's own wrappers."""

from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest

from vaportok_rl.envs import MOTaildropEnv, MOTaildropVectorEnv, TaildropEnv, TaildropVectorEnv
from vaportok_rl.registration import MO_TAILDROP_ID

REWARD = {"weights": {"efficiency": 2.0, "diversity": -0.5, "log_mse": 0.25, "generation": 0.0}}


def test_attributes_follow_mo_gymnasium(tiny_world: str) -> None:
    env = gymnasium.make(MO_TAILDROP_ID, tokenizer=tiny_world, path_length=2, reward=REWARD).unwrapped
    names = ("efficiency", "penalty", "diversity", "reconstruction", "generation", "log_mse")
    assert env.reward_terms == names
    assert env.reward_dim == 6
    assert env.reward_weights.tolist() == [2.0, 1.0, -0.5, 1.0, 0.0, 0.25]
    assert (env.reward_space.shape, env.reward_space.dtype) == ((6,), np.float32)


def test_dot_product_is_the_scalar_reward_and_the_sum_the_path(tiny_world: str) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 4, "reward": REWARD}
    vector, scalar = MOTaildropEnv(**settings), TaildropEnv(**settings)
    vector.reset(seed=3)
    scalar.reset(seed=3)
    rewards = []
    for action in (0, 15, 7, 3):
        _, paid, terminated, truncated, info = vector.step(action)
        _, reward, *flags, _ = scalar.step(action)
        assert paid in vector.reward_space
        assert [terminated, truncated] == flags
        assert paid @ vector.reward_weights == pytest.approx(reward, abs=1e-6)
        share = np.where(np.array(vector.reward_terms) == "diversity", 1, 1 / 4)
        assert paid == pytest.approx(share * list(info["reward_terms"].values()), abs=1e-6)
        rewards.append(paid)
    # The first three terms in closed form; K / 8 = 2.
    n = np.array([1, 16, 8, 4])
    assert sum(rewards)[:3] == pytest.approx([np.mean(1 - n / 16), -0.25 / 4, min(0.1, np.std(n / 16))], abs=1e-6)
    assert not any(np.shares_memory(one, other) for one, other in pairwise(rewards))


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_vector_environment_pays_each_row(tiny_world: str, mode: str) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 2, "group_size": 2, "autoreset_mode": mode}
    envs, scalars = MOTaildropVectorEnv(4, **settings), TaildropVectorEnv(4, **settings)
    envs.reset(seed=1)
    scalars.reset(seed=1)
    for row in np.random.default_rng(0).integers(0, 16, (2, 4)):
        observations, rewards, *_ = envs.step(row)
        expected, totals, *_ = scalars.step(row)
        assert (rewards.dtype, rewards.shape) == (np.float32, (4, 5))
        assert np.array_equal(observations, expected)
        assert rewards.sum(1) == pytest.approx(totals, abs=1e-6)


def test_vectors_of_mo_gymnasium_hold_it(tiny_world: str) -> None:
    vector = pytest.importorskip("mo_gymnasium.wrappers.vector")
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 2}
    theirs = vector.MOSyncVectorEnv([lambda: gymnasium.make(MO_TAILDROP_ID, **settings) for _ in range(2)])
    ours = MOTaildropVectorEnv(2, **settings)
    theirs.reset(seed=4)
    ours.reset(seed=4)
    assert theirs.reward_space == ours.reward_space
    actions = np.array([3, 11])
    assert np.array_equal(theirs.step(actions)[1], ours.step(actions)[1])
    theirs.close()
