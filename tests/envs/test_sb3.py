"""The Stable-Baselines3 face, and its own algorithms running on it."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from vaportok_rl.envs import TaildropEnv, TaildropVecEnv, TaildropVectorEnv, make_sb3_env


def test_steps_are_those_of_the_vector_environment(tiny_world: str) -> None:
    settings: dict[str, Any] = {"group_size": 2, "tokenizer": tiny_world, "path_length": 2}
    sb3, vector = TaildropVecEnv(4, **settings), TaildropVectorEnv(4, **settings)
    sb3.seed(6)
    assert np.array_equal(sb3.reset(), vector.reset(seed=6)[0])
    rng = np.random.default_rng(0)
    for step in range(5):
        actions = rng.integers(0, 16, 4)
        obs, rewards, dones, infos = sb3.step(actions)
        their_obs, their_rewards, terminated, _, their_infos = vector.step(actions)
        assert np.array_equal(obs, their_obs)
        assert rewards.dtype == np.float32
        assert np.array_equal(rewards, their_rewards.astype(np.float32))
        assert np.array_equal(dones, terminated)
        of = their_infos["final_info"] if terminated.all() else their_infos
        for env, info in enumerate(infos):
            assert info["n_tokens"] == actions[env] + 1
            assert info["mse"] == of["mse"][env]
            assert info["reward_terms"]["efficiency"] == of["reward_terms"]["efficiency"][env]
            assert not any(name.startswith("_") for name in (*info, *info["reward_terms"]))
            assert ("terminal_observation" in info) == (step % 2 == 1)
            if dones[env]:
                assert np.array_equal(info["terminal_observation"], their_infos["final_obs"][env])
                assert info["TimeLimit.truncated"] is False


def test_a_seed_holds_for_one_reset(tiny_world: str) -> None:
    env = TaildropVecEnv(2, tokenizer=tiny_world, path_length=1, obs="codes")
    env.seed(3)
    first, second = env.reset(), env.reset()
    env.seed(3)
    assert np.array_equal(env.reset(), first)
    assert np.array_equal(env.reset(), second)
    assert not np.array_equal(first, second)


def test_attributes_and_methods(tiny_world: str) -> None:
    env = TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    assert env.get_attr("group_size") == [2] * 4
    assert env.get_attr("render_mode", 0) == [None]
    assert env.has_attr("groups")
    assert not env.has_attr("no_such_attribute")
    assert env.env_is_wrapped(VecMonitor) == [False] * 4
    env.set_attr("note", 5)
    assert env.get_attr("note", [1, 2]) == [5, 5]
    assert env.env_method("seed_groups", 3, indices=[0]) == [None]
    env.close()


def test_dict_observations(tiny_world: str) -> None:
    env = TaildropVecEnv(2, tokenizer=tiny_world, path_length=1, obs=("complexity", "codes"))
    obs = env.reset()
    assert isinstance(obs, dict)
    assert obs["codes"].shape == (2, 16)
    _, _, _, infos = env.step(np.array([0, 15]))
    assert infos[0]["terminal_observation"]["codes"].shape == (16,)


def test_monitor_sees_path_rewards(tiny_world: str) -> None:
    env = make_sb3_env(4, group_size=2, tokenizer=tiny_world, path_length=3)
    assert isinstance(env, VecMonitor)
    env.seed(0)
    env.reset()
    total = np.zeros(4)
    for action in (1, 8, 15):
        _, rewards, dones, infos = env.step(np.full(4, action))
        total += rewards
    assert dones.all()
    assert [info["episode"]["r"] for info in infos] == pytest.approx(total.tolist(), abs=1e-5)
    assert [info["episode"]["l"] for info in infos] == [3] * 4


@pytest.mark.parametrize(("policy", "obs"), [("MlpPolicy", "latents"), ("MultiInputPolicy", ("complexity", "codes"))])
def test_an_unmodified_algorithm_trains_on_both_faces(tiny_world: str, policy: str, obs: Any) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 2, "obs": obs}
    for env in (TaildropEnv(**settings), make_sb3_env(2, **settings)):
        model = PPO(policy, env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu").learn(16)
        assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


LIMITS: dict[str, Any] = {"path_length": 3, "min_tokens": 2, "max_tokens": 10, "token_budget": 18}


def test_masks_reach_each_environment(tiny_world: str) -> None:
    env = make_sb3_env(4, group_size=2, tokenizer=tiny_world, **LIMITS)
    env.reset()
    env.step(np.array([1, 9, 4, 9]))
    masks = env.env_method("action_masks")
    assert env.has_attr("action_masks")
    assert [mask.shape for mask in masks] == [(16,)] * 4
    assert [(np.flatnonzero(mask) + 1)[[0, -1]].tolist() for mask in masks] == [[2, 10], [2, 6], [2, 10], [2, 6]]
    assert np.array_equal(env.env_method("action_masks", indices=[1])[0], masks[1])


def test_autoreset_cannot_be_switched_off(tiny_world: str) -> None:
    with pytest.raises(ValueError, match="SAME_STEP"):
        TaildropVecEnv(2, tokenizer=tiny_world, path_length=1, autoreset_mode="Disabled")
