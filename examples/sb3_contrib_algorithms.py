"""SB3-Contrib's TRPO and QR-DQN on the taildrop environment.

Run: pip install sb3-contrib; python examples/sb3_contrib_algorithms.py --algorithm qrdqn --steps 4096
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro
from sb3_contrib import QRDQN, TRPO
from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.envs import make_sb3_env

ALGORITHMS: dict[str, tuple[Callable[..., BaseAlgorithm], dict[str, Any]]] = {
    "trpo": (TRPO, {"n_steps": 16, "batch_size": 64}),
    "qrdqn": (QRDQN, {"learning_starts": 64, "train_freq": 1, "batch_size": 64, "buffer_size": 10_000}),
}
LOSSES = ("train/loss", "train/policy_objective", "train/value_loss")


@dataclass(frozen=True)
class Arguments:
    """An algorithm of SB3-Contrib on vaportok/Taildrop-v0."""

    algorithm: Literal["trpo", "qrdqn"] = "trpo"
    """Which one."""
    steps: int = 512
    """Decisions to train for."""
    num_envs: int = 16
    """Parallel paths."""
    path_length: int = 8
    """Clips a path visits."""
    tokenizer: str = "nano"
    """The frozen world."""
    seed: int = 0
    """Decides everything."""


def main(arguments: Arguments) -> BaseAlgorithm:
    """Trains and returns the agent."""
    env = make_sb3_env(
        arguments.num_envs,
        tokenizer=arguments.tokenizer,
        path_length=arguments.path_length,
        obs="complexity",
    )
    algorithm, settings = ALGORITHMS[arguments.algorithm]
    agent = algorithm("MlpPolicy", env, gamma=1.0, seed=arguments.seed, device="cpu", **settings)
    agent.learn(arguments.steps)
    losses = {name: value for name, value in agent.logger.name_to_value.items() if name in LOSSES}
    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    print(", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
    print(f"path reward {np.mean(rewards):.4f} over the last {len(rewards)} paths")
    return agent


if __name__ == "__main__":
    main(tyro.cli(Arguments))
