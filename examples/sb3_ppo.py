"""Stable-Baselines3's PPO on the taildrop environment, training the same network that GRPO trains.

Run: python examples/sb3_ppo.py --steps 20000
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from stable_baselines3 import PPO

from vaportok_rl.agents import TaildropPolicy
from vaportok_rl.envs import make_sb3_env


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    steps: int = 20_000
    """Decisions to train for."""
    num_envs: int = 32
    """Parallel paths."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def main(arguments: Arguments) -> PPO:
    """Trains and returns the agent."""
    env = make_sb3_env(arguments.num_envs, tokenizer=arguments.tokenizer)
    agent = PPO(
        TaildropPolicy,
        env,
        n_steps=16,
        batch_size=128,
        n_epochs=2,
        gamma=1.0,
        policy_kwargs={"tokenizer": arguments.tokenizer},
        seed=arguments.seed,
        device="cpu",
        verbose=1,
    )
    return agent.learn(arguments.steps)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
