"""Stable-Baselines3 and SB3-Contrib train on the environment as they are, through the example scripts."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch

ENVS, LENGTH, STEPS = 4, 4, 256


def trained(script: str, world: str, **choice: Any) -> Any:
    example = importlib.import_module(script)
    arguments = example.Arguments(steps=STEPS, num_envs=ENVS, path_length=LENGTH, tokenizer=world, **choice)
    return example.main(arguments)


def check_losses(agent: Any, *names: str) -> None:
    for name in names:
        assert math.isfinite(agent.logger.name_to_value[f"train/{name}"]), name
    assert all(torch.isfinite(value).all() for value in agent.policy.parameters())


def check_episodes(agent: Any, paths: int = STEPS // LENGTH) -> None:
    episodes = list(agent.ep_info_buffer)
    assert agent.num_timesteps == STEPS
    assert len(episodes) == paths
    assert {episode["l"] for episode in episodes} == {LENGTH}
    assert np.isfinite([episode["r"] for episode in episodes]).all()


def check_rollout_buffer(agent: Any, width: int = 2) -> None:
    """Shapes, ranges, and where episodes begin; what an episode was paid is what the monitor says."""
    buffer, steps = agent.rollout_buffer, agent.n_steps
    assert buffer.full
    # Training flattens what it reads, environment by environment.
    assert buffer.observations.size == steps * ENVS * width
    actions = buffer.actions.reshape(-1)
    assert len(actions) == steps * ENVS
    assert np.array_equal(actions, actions.astype(int))
    assert actions.min() >= 0
    assert actions.max() < 16
    assert buffer.rewards.shape == (steps, ENVS)
    assert np.isfinite(buffer.rewards).all()
    assert np.isfinite(buffer.advantages).all()
    assert np.array_equal(buffer.episode_starts, np.repeat(np.arange(steps) % LENGTH == 0, ENVS).reshape(steps, ENVS))
    returns = buffer.rewards.reshape(-1, LENGTH, ENVS).sum(1).reshape(-1)
    seen = [episode["r"] for episode in agent.ep_info_buffer][-len(returns) :]
    assert returns == pytest.approx(seen, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "losses"),
    [("ppo", ["loss"]), ("a2c", ["policy_loss", "value_loss"]), ("trpo", ["policy_objective", "value_loss"])],
)
def test_on_policy(tiny_world: str, algorithm: str, losses: list[str]) -> None:
    if algorithm == "trpo":
        pytest.importorskip("sb3_contrib")
    agent = trained("sb3_algorithms", tiny_world, algorithm=algorithm)
    check_losses(agent, *losses)
    check_episodes(agent)
    check_rollout_buffer(agent)


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn"])
def test_off_policy(tiny_world: str, algorithm: str) -> None:
    if algorithm == "qrdqn":
        pytest.importorskip("sb3_contrib")
    agent = trained("sb3_algorithms", tiny_world, algorithm=algorithm)
    check_losses(agent, "loss")
    check_episodes(agent)
    buffer, count = agent.replay_buffer, STEPS // ENVS
    assert buffer.pos == count
    assert buffer.observations.shape[1:] == (ENVS, 2)
    actions, rewards, dones = buffer.actions[:count], buffer.rewards[:count], buffer.dones[:count]
    assert actions.shape == (count, ENVS, 1)
    assert actions.min() >= 0
    assert actions.max() < 16
    assert np.isfinite(rewards).all()
    assert np.array_equal(dones, np.repeat(np.arange(1, count + 1) % LENGTH == 0, ENVS).reshape(count, ENVS))
    # Within a path the next observation is the following row's; at its end, the last clip's once more, and not the
    # first of the path that begins.
    observations, following = buffer.observations[:count], buffer.next_observations[:count]
    inner, last = np.flatnonzero(~dones[:-1].any(1).astype(bool)), np.flatnonzero(dones.any(1))
    assert np.array_equal(following[inner], observations[inner + 1])
    assert np.array_equal(following[last], observations[last])


def test_maskable_ppo_keeps_the_budget(tiny_world: str) -> None:
    pytest.importorskip("sb3_contrib")
    budget, minimum = 20, 2
    agent, lengths = trained("sb3_contrib_maskable_ppo", tiny_world, budget=budget, minimum=minimum)
    check_losses(agent, "loss")
    check_episodes(agent)
    check_rollout_buffer(agent)
    actions = agent.rollout_buffer.actions.reshape(-1).astype(int)
    masks = agent.rollout_buffer.action_masks.reshape(len(actions), 16).astype(bool)
    assert masks[np.arange(len(actions)), actions].all()
    kept = actions.reshape(-1, LENGTH) + 1
    assert (kept.sum(1) <= budget).all()
    # What each mask allows follows from what was kept before on its path.
    spent = np.cumsum(kept, 1) - kept
    highest = np.minimum(16, budget - spent - minimum * np.arange(LENGTH)[::-1]).reshape(-1)
    n = np.arange(1, 17)
    assert np.array_equal(masks, (n >= minimum) & (n <= highest[:, None]))
    assert len(lengths) == LENGTH
    assert sum(lengths) <= budget
    assert min(lengths) >= minimum
