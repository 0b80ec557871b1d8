"""REINFORCE: its step is Williams's, its baseline the past's mean, and it learns."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from vaportok_rl.agents import TaildropPolicy
from vaportok_rl.agents.reinforce import REINFORCE, episode_returns
from vaportok_rl.envs import TaildropVecEnv

ONLY_EFFICIENCY = {"weights": {"efficiency": 1, "penalty": 0, "diversity": 0, "reconstruction": 0, "generation": 0}}


def make_agent(world: str, **settings: Any) -> REINFORCE:
    env = TaildropVecEnv(8, group_size=4, tokenizer=world, path_length=2, reward=ONLY_EFFICIENCY)
    settings = {"n_steps": 2, "seed": 0, "policy_kwargs": {"tokenizer": world}, "device": "cpu", **settings}
    return REINFORCE(TaildropPolicy, env, **settings)


@given(st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=3), min_size=1, max_size=3), st.integers(0, 99))
def test_every_step_gets_its_episodes_return(lengths: list[list[int]], seed: int) -> None:
    steps = sum(lengths[0])
    columns = [episodes for episodes in lengths if sum(episodes) == steps]
    rewards = np.random.default_rng(seed).normal(size=(steps, len(columns))).astype(np.float32)
    starts = np.zeros_like(rewards)
    expected = np.zeros_like(rewards)
    for env, episodes in enumerate(columns):
        at = 0
        for length in episodes:
            starts[at, env] = 1
            for step in range(length):
                expected[at + step, env] = sum(rewards[at + other, env] for other in range(length))
            at += length
    np.testing.assert_allclose(episode_returns(rewards, starts), expected, rtol=1e-4, atol=1e-5)


def test_a_rollout_from_the_middle_of_an_episode_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 environments in the middle"):
        episode_returns(np.zeros((2, 2), np.float32), np.array([[1, 0], [1, 1]], np.float32))


def test_unfinished_episodes_are_refused(tiny_world: str) -> None:
    with pytest.raises(ValueError, match=r"unfinished ones after n_steps=3; set n_steps"):
        make_agent(tiny_world, n_steps=3).learn(24)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_the_decay_is_a_share(tiny_world: str, decay: float) -> None:
    with pytest.raises(ValueError, match=r"baseline_decay in \[0, 1\)"):
        make_agent(tiny_world, baseline_decay=decay)


class Keep(BaseCallback):
    """Copies each rollout before it is learnt from."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[tuple[np.ndarray, ...]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer  # type: ignore[attr-defined]
        parts = buffer.observations, buffer.actions[..., 0].astype(np.int64), buffer.rewards
        self.rollouts.append(tuple(part.copy() for part in parts))


def test_the_step_is_williams(tiny_world: str) -> None:
    rate, decay, keep = 0.5, 0.75, Keep()
    settings = {"tokenizer": tiny_world, "optimizer_class": torch.optim.SGD}
    agent = make_agent(tiny_world, learning_rate=rate, baseline_decay=decay, policy_kwargs=settings)
    twin = make_agent(tiny_world, policy_kwargs=settings).policy
    agent.learn(32, callback=keep)
    baseline = None
    for observations, actions, rewards in keep.rollouts:
        returns = rewards.sum(0)
        baseline = returns.mean() if baseline is None else baseline
        loss = torch.zeros(())
        for step in range(2):
            log_p = twin.length_log_probs(torch.as_tensor(observations[step])[:, None])[:, 0]
            chosen = log_p[torch.arange(8), torch.as_tensor(actions[step])]
            loss = loss - (torch.as_tensor(returns - baseline) * chosen).sum() / 16
        twin.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in twin.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
        baseline = decay * baseline + (1 - decay) * returns.mean()
    assert agent.baseline == pytest.approx(baseline, rel=1e-5)
    for (name, mine), other in zip(agent.policy.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6, msg=name)


class Truncated(gymnasium.Env[Any, int]):
    """Pays 1 per step and is truncated after four."""

    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.steps = 0
        return np.ones(2, np.float32), {}

    def step(self, action: int) -> Any:
        self.steps += 1
        return np.ones(2, np.float32), 1.0, False, self.steps == 4, {}


def test_no_value_is_added_where_a_time_limit_ends_an_episode() -> None:
    agent, keep = REINFORCE("MlpPolicy", DummyVecEnv([Truncated] * 2), n_steps=8, seed=0, device="cpu"), Keep()
    torch.nn.init.constant_(agent.policy.value_net.bias, 100.0)
    agent.learn(16, callback=keep)
    assert (keep.rollouts[0][2] == 1).all()


def test_it_learns_to_keep_few_tokens(tiny_world: str) -> None:
    agent = make_agent(tiny_world, learning_rate=3e-3, policy_kwargs={"tokenizer": tiny_world, "pretrained": False})
    agent.learn(16 * 40)
    env = agent.get_env()
    assert env is not None
    observed = torch.as_tensor(env.reset())[:, None]
    tokens = (agent.policy.length_log_probs(observed).exp() * torch.arange(1, 17)).sum(-1)
    assert tokens.mean() < 5  # at first 8.5


def test_the_baseline_survives_a_save(tiny_world: str, tmp_path: Path) -> None:
    agent = make_agent(tiny_world).learn(32)
    agent.save(tmp_path / "agent.zip")
    again = REINFORCE.load(tmp_path / "agent.zip", device="cpu")
    assert again.baseline == agent.baseline is not None
    assert again.baseline_decay == 0.9
