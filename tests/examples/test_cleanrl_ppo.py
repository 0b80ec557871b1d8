"""The single-file PPO: on the environment, and its arithmetic against slow references."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode


@pytest.fixture
def example() -> Any:
    return importlib.import_module("cleanrl_ppo")


@pytest.mark.parametrize("obs", ["complexity", "latents"])
def test_trains_on_the_vector_environment(example: Any, tiny_world: str, obs: str) -> None:
    arguments = example.Arguments(
        updates=8, num_envs=4, num_steps=8, path_length=4, tokenizer=tiny_world, obs=obs, epochs=2
    )
    history = example.main(arguments)
    assert len(history.losses) == 8
    assert np.isfinite(history.losses).all()
    assert all(torch.isfinite(value).all() for value in history.agent.parameters())
    rollout = history.rollout
    assert rollout.observations.shape == (8, 4, *((2,) if obs == "complexity" else (16, 32)))
    assert rollout.actions.shape == rollout.rewards.shape == rollout.values.shape == rollout.log_probs.shape == (8, 4)
    assert rollout.last_value.shape == (4,)
    assert rollout.actions.min() >= 0
    assert rollout.actions.max() < 16
    assert rollout.rewards.isfinite().all()
    assert rollout.dones.tolist() == [[step % 4 == 3] * 4 for step in range(8)]
    assert history.lengths == [4] * 64
    returns = rollout.rewards.view(2, 4, 4).sum(1).flatten().tolist()
    assert history.returns[-8:] == pytest.approx(returns, rel=1e-5, abs=1e-5)


def test_what_follows_a_truncated_episode_is_the_value_of_its_own_last_observation(example: Any) -> None:
    limit, steps, gamma, seed = 3, 4, 0.9, 5
    envs = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        max_episode_steps=limit,
    )
    torch.manual_seed(0)
    agent = example.Agent(envs)
    first = torch.from_numpy(envs.reset(seed=seed)[0]).float()
    rollout, _ = example.collect(envs, agent, first, steps, gamma)
    assert rollout.dones.tolist() == [[step == limit - 1] * 2 for step in range(steps)]
    for member in range(2):
        alone = gymnasium.make("CartPole-v1", max_episode_steps=limit)
        alone.reset(seed=seed + member)
        for step in range(limit):
            last, *_ = alone.step(int(rollout.actions[step, member]))
        value = agent.value(torch.from_numpy(last)[None].float()).item()
        assert rollout.rewards[:, member].tolist() == pytest.approx([1, 1, 1 + gamma * value, 1])


def test_advantages_are_the_discounted_sums_of_errors(example: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    steps, envs, gamma, lam = 7, 3, 0.9, 0.8
    rewards, values = torch.randn(2, steps, envs, generator=generator)
    dones = torch.rand(steps, envs, generator=generator) < 0.3
    last = torch.randn(envs, generator=generator)
    unused = torch.zeros(steps, envs)
    rollout = example.Rollout(unused, unused, unused, rewards, dones, values, last)
    following = torch.cat([values[1:], last[None]]) * ~dones
    errors = rewards + gamma * following - values
    expected = torch.zeros(steps, envs)
    for env in range(envs):
        for start in range(steps):
            for step in range(start, steps):
                expected[start, env] += (gamma * lam) ** (step - start) * errors[step, env]
                if dones[step, env]:
                    break
    torch.testing.assert_close(example.advantages_of(rollout, gamma, lam), expected)


def test_refuses_another_autoreset_mode(example: Any) -> None:
    envs = gymnasium.make_vec("CartPole-v1", num_envs=1, vectorization_mode="sync")
    with pytest.raises(ValueError, match="SAME_STEP"):
        example.train(envs, example.Arguments(num_envs=1))
