"""The Stable-Baselines3 face, and its own algorithms running on it."""

import math
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor

from vaportok_rl.agents import TaildropPolicy
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


class Recorder(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self.seen: dict[str, list[float]] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        self.seen.setdefault(key, []).append(value)


def logged_losses(model: Any, steps: int) -> list[float]:
    """Trains, and returns what was logged as losses."""
    recorder = Recorder()
    model.set_logger(recorder)
    model.learn(steps)
    return [value for key, values in recorder.seen.items() if key.endswith("loss") for value in values]


@pytest.mark.parametrize(
    ("obs", "policy"),
    [("complexity", "MlpPolicy"), ("latents", "MlpPolicy"), (("latents", "complexity"), "MultiInputPolicy")],
    ids=str,
)
@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_unmodified_on_every_face(tiny_world: str, algorithm: Any, policy: str, obs: Any) -> None:
    settings: dict[str, Any] = {"n_steps": 8}
    if algorithm is PPO:
        settings |= {"batch_size": 8, "n_epochs": 1}
    if algorithm is DQN:
        settings = {"learning_starts": 8, "batch_size": 8, "buffer_size": 64, "train_freq": 4}
    for env in (
        TaildropEnv(tokenizer=tiny_world, path_length=2, obs=obs),
        make_sb3_env(2, tokenizer=tiny_world, path_length=2, obs=obs),
    ):
        losses = logged_losses(algorithm(policy, env, seed=0, device="cpu", **settings), 48)
        assert losses
        assert all(math.isfinite(loss) for loss in losses)


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


def spends_within_limits(env: Any, model: Any) -> None:
    """Plays the stochastic policy with masks: every action is allowed, and kept as it is."""
    from sb3_contrib.common.maskable.utils import get_action_masks

    obs = env.reset()
    for _ in range(6):
        masks = get_action_masks(env)
        actions, _ = model.predict(obs, action_masks=masks)
        assert masks[np.arange(len(actions)), actions].all()
        obs, _, _, infos = env.step(actions)
        assert [info["n_tokens"] for info in infos] == (actions + 1).tolist()


def test_maskable_ppo(tiny_world: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = make_sb3_env(4, group_size=2, tokenizer=tiny_world, obs="complexity", **LIMITS)
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=12, batch_size=12, n_epochs=1, seed=0, device="cpu")
    losses = logged_losses(model, 96)
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    spends_within_limits(env, model)


def test_maskable_ppo_on_the_scalar_environment(tiny_world: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = TaildropEnv(tokenizer=tiny_world, obs="complexity", **LIMITS)
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=12, batch_size=12, n_epochs=1, seed=0, device="cpu")
    assert all(math.isfinite(loss) for loss in logged_losses(model, 24))
    spends_within_limits(model.get_env(), model)


@pytest.mark.parametrize("name", ["TRPO", "QRDQN"])
def test_sb3_contrib(tiny_world: str, name: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    settings: dict[str, Any] = {"n_steps": 16, "batch_size": 16}
    if name == "QRDQN":
        settings = {"learning_starts": 8, "batch_size": 8, "buffer_size": 64, "train_freq": 4}
    env = make_sb3_env(2, tokenizer=tiny_world, path_length=2, obs="complexity")
    losses = logged_losses(getattr(contrib, name)("MlpPolicy", env, seed=0, device="cpu", **settings), 96)
    assert losses
    assert all(math.isfinite(loss) for loss in losses)


def test_an_agent_without_masks_stays_within_the_budget(tiny_world: str) -> None:
    env = make_sb3_env(2, tokenizer=tiny_world, **LIMITS)
    env.reset()
    kept = [[info["n_tokens"] for info in env.step(np.full(2, 15))[3]] for _ in range(3)]
    assert kept == [[10, 10], [6, 6], [2, 2]]


@pytest.mark.parametrize(
    ("algorithm", "policy", "obs"),
    [
        (PPO, TaildropPolicy, "latents"),
        (A2C, TaildropPolicy, "latents"),
        (PPO, "MlpPolicy", "complexity"),
        (PPO, "MultiInputPolicy", ("complexity", "codes")),
    ],
    ids=["PPO taildrop", "A2C taildrop", "PPO complexity", "PPO several"],
)
def test_stable_baselines_trains_on_it(tiny_world: str, algorithm: Any, policy: Any, obs: Any) -> None:
    env = make_sb3_env(8, group_size=2, tokenizer=tiny_world, path_length=2, obs=obs)
    settings: dict[str, Any] = {"n_steps": 16}
    if algorithm is PPO:
        settings |= {"batch_size": 64, "n_epochs": 2}
    if policy is TaildropPolicy:
        settings["policy_kwargs"] = {"tokenizer": tiny_world}
    model = algorithm(policy, env, seed=0, device="cpu", **settings)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    recorder = Recorder()
    model.set_logger(recorder)
    model.learn(256)
    losses = recorder.seen["train/loss" if algorithm is PPO else "train/policy_loss"]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert any(not before[name].equal(value) for name, value in model.policy.state_dict().items())
    assert len(model.ep_info_buffer) == 100
    action, state = model.predict(env.reset())
    assert action.shape == (8,)
    assert state is None


def test_autoreset_cannot_be_switched_off(tiny_world: str) -> None:
    with pytest.raises(ValueError, match="SAME_STEP"):
        TaildropVecEnv(2, tokenizer=tiny_world, path_length=1, autoreset_mode="Disabled")
