"""TorchRL, skrl, RLlib, Tianshou and MO-Gymnasium on the environment, through the example scripts."""

from __future__ import annotations

import importlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

LENGTH = 4


# Importing TorchRL's collectors declares classes that it has itself deprecated.
@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
@pytest.mark.parametrize("num_envs", [1, 4], ids=["GymEnv", "GymWrapper"])
def test_torchrl_collects_and_learns(tiny_world: str, num_envs: int) -> None:
    pytest.importorskip("torchrl")
    example = importlib.import_module("torchrl_collector")
    arguments = example.Arguments(
        num_envs=num_envs, batches=2, frames_per_batch=128, path_length=LENGTH, tokenizer=tiny_world
    )
    batch, losses, rewards = example.main(arguments)
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert np.isfinite(rewards).all()
    steps = 128 // num_envs
    assert batch.shape == ((steps,) if num_envs == 1 else (num_envs, steps))
    batch = batch.view(num_envs, steps)
    assert batch["observation"].shape == (num_envs, steps, 2)
    assert batch["action"].min() >= 0
    assert batch["action"].max() < 16
    assert batch["next", "reward"].isfinite().all()
    done = batch["next", "done"].squeeze(-1)
    assert done.tolist() == [[step % LENGTH == LENGTH - 1 for step in range(steps)]] * num_envs
    assert torch.equal(done, batch["next", "terminated"].squeeze(-1))
    # Within a path one row's next observation is the following row's; at its end, the last clip's once more.
    now, following = batch["observation"], batch["next", "observation"]
    assert torch.equal(following[:, :-1][~done[:, :-1]], now[:, 1:][~done[:, :-1]])
    assert torch.equal(following[done], now[done])


@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
def test_torchrl_sees_the_rewards_of_the_environment(tiny_world: str) -> None:
    pytest.importorskip("torchrl")
    example = importlib.import_module("torchrl_collector")
    found = {}
    for num_envs in (1, 2):
        env = example.make_env(example.Arguments(num_envs=num_envs, path_length=LENGTH, tokenizer=tiny_world))
        env.set_seed(3)
        state = env.reset()
        rewards = []
        for action in (0, 5, 9, 15):
            state = env.step(state.set("action", torch.full(env.batch_size, action)))["next"]
            rewards.append(state["reward"].reshape(-1)[0].item())
        found[num_envs] = rewards
        env.close()
    gym = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tiny_world, path_length=LENGTH, obs="complexity")
    # TorchRL seeds by a reset of its own, so what it shows is the seed's second scene.
    gym.reset(seed=3)
    gym.reset()
    assert found[2] == found[1]
    assert found[1] == [np.float32(gym.step(action)[1]) for action in (0, 5, 9, 15)]


def test_skrl_ppo(tiny_world: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skrl")
    example = importlib.import_module("skrl_ppo")
    agent = example.main(example.Arguments(steps=64, rollouts=16, num_envs=4, path_length=LENGTH, tokenizer=tiny_world))
    assert "path reward" in capsys.readouterr().out
    losses = [value for name, values in agent.tracking_data.items() if name.startswith("Loss") for value in values]
    assert len(losses) >= 8
    assert np.isfinite(losses).all()
    memory = {
        name: agent.memory.get_tensor_by_name(name) for name in ("observations", "actions", "rewards", "terminated")
    }
    assert memory["observations"].shape == (16, 4, 2)
    assert memory["actions"].shape == memory["rewards"].shape == (16, 4, 1)
    assert memory["actions"].min() >= 0
    assert memory["actions"].max() < 16
    assert memory["rewards"].isfinite().all()
    assert memory["terminated"][..., 0].tolist() == [[step % LENGTH == LENGTH - 1] * 4 for step in range(16)]


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_rllib_ppo(tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.rllib")
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps a token
    example = importlib.import_module("rllib_ppo")
    results = example.main(example.Arguments(path_length=LENGTH, tokenizer=tiny_world))
    seen = results["env_runners"]
    assert (seen["num_env_steps_sampled"], seen["episode_len_mean"]) == (64, LENGTH)
    assert np.isfinite(seen["episode_return_mean"])
    assert np.isfinite(results["learners"]["default_policy"]["total_loss"])


@pytest.mark.filterwarnings("ignore")  # Tianshou's own
def test_tianshou_ppo(tiny_world: str) -> None:
    pytest.importorskip("tianshou")
    example = importlib.import_module("tianshou_ppo")
    arguments = example.Arguments(epochs=1, decisions=64, num_envs=2, path_length=LENGTH, tokenizer=tiny_world)
    (found, buffer), (again, _) = example.main(arguments), example.main(arguments)
    assert found.lens.tolist() == [LENGTH] * 2
    assert found.returns.tolist() == again.returns.tolist()
    last = buffer.sample_indices(0)[-2 * LENGTH :]
    assert buffer.rew[last].sum() == pytest.approx(found.returns.sum())
    assert buffer.terminated[last].sum() == 2


def test_mo_gymnasium_wrappers(tiny_world: str) -> None:
    pytest.importorskip("mo_gymnasium")
    example = importlib.import_module("mo_gymnasium_rewards")
    results = example.main(example.Arguments(steps=160, path_length=LENGTH, tokenizer=tiny_world))
    for name, preference in example.PREFERENCES.items():
        agent, terms, returns = results[name]
        assert list(terms) == ["efficiency", "penalty", "diversity", "reconstruction", "generation"]
        assert returns.shape == (32, 5)
        assert np.isfinite(returns).all()
        assert np.isfinite(agent.logger.name_to_value["train/policy_loss"])
        assert agent.rollout_buffer.rewards.shape == (16, 1)
        episodes = list(agent.ep_info_buffer)
        assert [episode["l"] for episode in episodes] == [LENGTH] * 40
        # What the agent was paid for a path is the preference's weighted sum of its vector return.
        weights = np.array([preference.get(term, 0.0) for term in terms])
        assert returns @ weights == pytest.approx([episode["r"] for episode in episodes][-32:], rel=1e-5, abs=1e-5)


def test_linear_reward_is_the_scalar_environment(tiny_world: str) -> None:
    pytest.importorskip("mo_gymnasium")
    example = importlib.import_module("mo_gymnasium_rewards")
    weights = {"efficiency": 2.0, "diversity": 0.5, "reconstruction": 3.0, "log_mse": 0.25}
    for reward in (None, {"weights": weights}):
        settings = {"tokenizer": tiny_world, "path_length": LENGTH, "obs": "complexity", "reward": reward}
        assert all(example.largest_difference(settings, seed) < 1e-6 for seed in range(3))
