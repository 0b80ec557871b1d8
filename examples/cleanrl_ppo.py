"""PPO in a single file, in the style of CleanRL: only Gymnasium and PyTorch.

Run: python examples/cleanrl_ppo.py --updates 40

The environment resets finished episodes in the same step (SAME_STEP): the observation that comes with `terminated` or
`truncated` is the next episode's first. The last one of the finished episode is in `infos["final_obs"]`; a truncated
episode is bootstrapped from its value. Our episodes only terminate, but the loop handles both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.spaces.utils import flatdim
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical

import vaportok_rl  # noqa: F401  (registers the environment)


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    updates: int = 5
    """Rollouts, each followed by an update."""
    num_envs: int = 8
    """Parallel paths."""
    num_steps: int = 16
    """Decisions per path and rollout."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    obs: str = "complexity"
    """Observation of the agent."""
    seed: int = 0
    """Seed of all random numbers."""
    learning_rate: float = 1e-3
    gamma: float = 1.0
    gae_lambda: float = 0.95
    epochs: int = 4
    minibatches: int = 4
    clip: float = 0.2
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    max_grad_norm: float = 0.5


class Agent(nn.Module):
    """An actor and a critic, each a small MLP over the flattened observation."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        super().__init__()
        inputs, actions = flatdim(envs.single_observation_space), flatdim(envs.single_action_space)
        self.actor = self._network(inputs, actions, gain=0.01)
        self.critic = self._network(inputs, 1, gain=1.0)

    @staticmethod
    def _network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
        layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
        for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
            nn.init.orthogonal_(layer.weight, scale)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])

    def policy(self, observations: Tensor) -> Categorical:
        """Over the actions."""
        return Categorical(logits=self.actor(observations))

    def value(self, observations: Tensor) -> Tensor:
        """``[B]``."""
        values: Tensor = self.critic(observations)
        return values.squeeze(-1)


class Rollout(NamedTuple):
    """T steps of N environments: every tensor is ``[T, N, ...]``, but for ``last_value [N]``."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    dones: Tensor
    values: Tensor
    last_value: Tensor


@dataclass
class History:
    """Results of training."""

    agent: Agent
    rollout: Rollout
    losses: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


@torch.no_grad()
def collect(
    envs: VectorEnv[Any, Any, Any], agent: Agent, observation: Tensor, steps: int, gamma: float
) -> tuple[Rollout, Tensor]:
    """Steps all environments; returns the rollout and the next observation."""
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(steps):
        policy = agent.policy(observation)
        action = policy.sample()
        shown, reward, terminated, truncated, infos = envs.step(action.numpy())
        if truncated.any():
            # Truncated: bootstrap from the last observation. The one returned by `step` is the next episode's.
            final = torch.from_numpy(np.stack(list(infos["final_obs"][truncated]))).float()
            reward = reward.copy()
            reward[truncated] += gamma * agent.value(final).numpy()
        rows.append(
            (
                observation,
                action,
                policy.log_prob(action),
                torch.from_numpy(reward).float(),
                torch.from_numpy(terminated | truncated),
                agent.value(observation),
            )
        )
        observation = torch.from_numpy(shown).float()
    observations, taken, log_probs, rewards, dones, values = (torch.stack(column) for column in zip(*rows, strict=True))
    return Rollout(observations, taken, log_probs, rewards, dones, values, agent.value(observation)), observation


def advantages_of(rollout: Rollout, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates ``[T, N]``, cut at the ends of episodes."""
    advantages = torch.zeros_like(rollout.rewards)
    following, next_value = torch.zeros_like(rollout.last_value), rollout.last_value
    for step in reversed(range(len(rollout.rewards))):
        goes_on = (~rollout.dones[step]).float()
        error = rollout.rewards[step] + gamma * next_value * goes_on - rollout.values[step]
        following = advantages[step] = error + gamma * gae_lambda * goes_on * following
        next_value = rollout.values[step]
    return advantages


def update(agent: Agent, optimiser: torch.optim.Optimizer, rollout: Rollout, arguments: Arguments) -> float:
    """Some epochs of the clipped objective; returns the mean loss."""
    advantages = advantages_of(rollout, arguments.gamma, arguments.gae_lambda)
    targets = (advantages + rollout.values).flatten()
    observations, actions = rollout.observations.flatten(0, 1), rollout.actions.flatten()
    before, advantages = rollout.log_probs.flatten(), advantages.flatten()
    losses = []
    for _ in range(arguments.epochs):
        for rows in torch.randperm(len(actions)).chunk(arguments.minibatches):
            policy = agent.policy(observations[rows])
            ratio = (policy.log_prob(actions[rows]) - before[rows]).exp()
            advantage = advantages[rows]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = ratio.clamp(1 - arguments.clip, 1 + arguments.clip)
            gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
            value_loss = (agent.value(observations[rows]) - targets[rows]).square().mean()
            entropy = policy.entropy().mean()
            loss = arguments.value_weight * value_loss - gain - arguments.entropy_weight * entropy
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), arguments.max_grad_norm)
            optimiser.step()
            losses.append(loss.item())
    return float(np.mean(losses))


def train(envs: VectorEnv[Any, Any, Any], arguments: Arguments) -> History:
    """PPO on any vector environment with discrete actions in SAME_STEP mode."""
    if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
        raise ValueError(f"Expected autoreset_mode SAME_STEP, got {envs.metadata['autoreset_mode']}; make it so.")
    torch.manual_seed(arguments.seed)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs, buffer_length=100)
    agent = Agent(envs)
    optimiser = torch.optim.Adam(agent.parameters(), lr=arguments.learning_rate, eps=1e-5)
    observation = torch.from_numpy(envs.reset(seed=arguments.seed)[0]).float()
    losses = []
    for number in range(arguments.updates):
        rollout, observation = collect(envs, agent, observation, arguments.num_steps, arguments.gamma)
        losses.append(update(agent, optimiser, rollout, arguments))
        if envs.return_queue:
            print(f"update {number + 1:3d}: loss {losses[-1]:+.4f}, mean return {np.mean(envs.return_queue):.4f}")
    return History(agent, rollout, losses, [float(r) for r in envs.return_queue], [int(n) for n in envs.length_queue])


def main(arguments: Arguments) -> History:
    """Trains on the taildrop environment."""
    envs = gymnasium.make_vec(
        "vaportok/Taildrop-v0",
        num_envs=arguments.num_envs,
        vectorization_mode="vector_entry_point",
        tokenizer=arguments.tokenizer,
        path_length=arguments.path_length,
        obs=arguments.obs,
    )
    history = train(envs, arguments)
    envs.close()
    return history


if __name__ == "__main__":
    main(tyro.cli(Arguments))
