"""Copies and pickles of environments continue identically, and never hold the world."""

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

from vaportok_rl.envs import MOTaildropVectorEnv, TaildropEnv, TaildropVectorEnv, shared_world
from vaportok_rl.registration import TAILDROP_ID


def through_pickle(env: Any) -> Any:
    frozen = pickle.dumps(env)
    assert len(frozen) < 100_000
    return pickle.loads(frozen)


@pytest.fixture(params=[copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"])
def duplicate(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_scalar_environment_in_the_middle_of_a_path(tiny_world: str, duplicate: Any) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, token_budget=30, render_mode="rgb_array")
    env.reset(seed=2)
    env.step(9)
    twin = duplicate(env)
    assert twin.process.engine.world is shared_world(tiny_world)
    assert np.array_equal(twin.action_masks(), env.action_masks())
    assert twin.render().shape == env.render().shape
    for action in (15, 2):
        (seen, reward, *_, info), (their_seen, their_reward, *_, their_info) = env.step(action), twin.step(action)
        assert np.array_equal(seen, their_seen)
        assert reward == their_reward
        assert info == their_info
    assert np.array_equal(env.render(), twin.render())
    # The random streams are independent, and at the same place.
    assert np.array_equal(env.reset()[0], twin.reset()[0])
    assert twin.observation_space == env.observation_space


@pytest.mark.parametrize("kind", [TaildropVectorEnv, MOTaildropVectorEnv])
def test_a_vector_environment_whose_groups_are_at_different_steps(tiny_world: str, duplicate: Any, kind: Any) -> None:
    env = kind(4, group_size=2, tokenizer=tiny_world, path_length=2)
    env.reset(seed=2)
    env.step(np.arange(4))
    env.reset(options={"reset_mask": np.array([False, False, True, True])})
    twin = duplicate(env)
    assert twin.process.engine.world is env.process.engine.world
    for row in np.random.default_rng(0).integers(0, 16, (3, 4)):
        for one, other in zip(env.step(row)[:4], twin.step(row)[:4], strict=True):
            assert np.array_equal(one, other)


def test_what_one_does_is_not_seen_by_the_other(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3)
    env.reset(seed=0)
    twin, alone = copy.deepcopy(env), TaildropEnv(tokenizer=tiny_world, path_length=3)
    alone.reset(seed=0)
    env.process.reward = env.process.reward.with_weights({"efficiency": 9.0})
    for action in (3, 4, 5):
        env.step(15 - action)
        assert twin.step(action)[1] == alone.step(action)[1]


def test_changed_weights_survive_a_pickle(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.process.reward = env.process.reward.with_weights({"efficiency": 9.0})
    assert through_pickle(env).process.reward.weights["efficiency"] == 9.0


def test_an_environment_that_was_never_reset(tiny_world: str, duplicate: Any) -> None:
    env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=1)
    twin = duplicate(env)
    assert np.array_equal(twin.reset(seed=1)[0], env.reset(seed=1)[0])
