"""Stable-Baselines3's PPO, A2C and DQN and SB3-Contrib's TRPO and QR-DQN on the taildrop environment.

Run: python examples/sb3_algorithms.py --algorithm dqn --steps 4096; TRPO and QR-DQN need `pip install sb3-contrib`

The MLP policy sees the clip's spatial and temporal complexity. `sb3_ppo.py` trains the taildrop module on the latents
instead.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro
from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.envs import make_sb3_env

REPLAY = {
    "learning_starts": 64,
    "buffer_size": 10_000,
    "batch_size": 64,
    "train_freq": 1,
    # One gradient step per transition.
    "gradient_steps": -1,
}
# By name, so that SB3-Contrib is needed only for its own algorithms.
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("stable_baselines3:PPO", {"n_steps": 16, "batch_size": 64, "n_epochs": 4, "learning_rate": 1e-3}),
    "a2c": ("stable_baselines3:A2C", {"n_steps": 8}),
    "dqn": ("stable_baselines3:DQN", REPLAY),
    "trpo": ("sb3_contrib:TRPO", {"n_steps": 16, "batch_size": 64}),
    "qrdqn": ("sb3_contrib:QRDQN", REPLAY | {"policy_kwargs": {"n_quantiles": 50}}),
}
LOSSES = ("train/loss", "train/policy_loss", "train/policy_objective", "train/value_loss")


@dataclass(frozen=True)
class Arguments:
    """An algorithm of Stable-Baselines3 or SB3-Contrib on vaportok/Taildrop-v0."""

    algorithm: Literal["ppo", "a2c", "dqn", "trpo", "qrdqn"] = "dqn"
    """The algorithm."""
    steps: int = 512
    """Decisions to train for."""
    num_envs: int = 16
    """Parallel paths."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def main(arguments: Arguments) -> BaseAlgorithm:
    """Trains and returns the agent."""
    env = make_sb3_env(
        arguments.num_envs, tokenizer=arguments.tokenizer, path_length=arguments.path_length, obs="complexity"
    )
    name, settings = ALGORITHMS[arguments.algorithm]
    algorithm: type[BaseAlgorithm] = pkgutil.resolve_name(name)
    # Episodes are short and undiscounted.
    agent = algorithm("MlpPolicy", env, gamma=1.0, seed=arguments.seed, device="cpu", **settings)
    agent.learn(arguments.steps)
    losses = {name: value for name, value in agent.logger.name_to_value.items() if name in LOSSES}
    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    print(", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
    print(f"path reward {np.mean(rewards):.4f} over the last {len(rewards)} paths")
    return agent


if __name__ == "__main__":
    main(tyro.cli(Arguments))
