"""RLlib's PPO.

Run: pip install "ray[rllib]"; pip install "gymnasium>=1.4"; python examples/rllib_ppo.py --runners 1

RLlib 2.60 pins an older Gymnasium than the environment needs, and runs on the newer one in spite of pip's warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import tyro
from ray.rllib.algorithms.ppo import PPOConfig


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    iterations: int = 1
    """Rounds of sampling and training."""
    decisions: int = 64
    """Of each round."""
    runners: int = 0
    """Processes that sample; 0 samples in this one."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Trains and returns the last round's results."""
    settings = {"tokenizer": arguments.tokenizer, "path_length": arguments.path_length, "obs": "complexity"}
    config = (
        # The prefix imports the package that registers the environment, in every process.
        PPOConfig()
        .environment("vaportok_rl:vaportok/Taildrop-v0", env_config=settings)
        .env_runners(num_env_runners=arguments.runners)
        .training(train_batch_size_per_learner=arguments.decisions, minibatch_size=32, num_epochs=4, gamma=1.0)
        .debugging(seed=arguments.seed)
    )
    ray.init(num_cpus=arguments.runners + 1, include_dashboard=False)
    try:
        algorithm = config.build_algo()
        for _ in range(arguments.iterations):
            results: dict[str, Any] = algorithm.train()
            print(f"path reward {results['env_runners']['episode_return_mean']:.4f}")
        algorithm.stop()
    finally:
        ray.shutdown()
    return results


if __name__ == "__main__":
    main(tyro.cli(Arguments))
