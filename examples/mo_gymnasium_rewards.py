"""The reward terms as objectives: MO-Gymnasium's wrappers over vaportok/MO-Taildrop-v0.

Run: pip install mo-gymnasium; python examples/mo_gymnasium_rewards.py

`LinearReward` with the environment's own weights gives the scalar environment's reward. Other weights are other
preferences: one agent is trained for each of two, and `MORecordEpisodeStatistics` records its return per term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import numpy as np
import tyro
from mo_gymnasium.wrappers import LinearReward, MORecordEpisodeStatistics
from numpy.typing import NDArray
from stable_baselines3 import A2C

import vaportok_rl  # noqa: F401  (registers the environments)
from vaportok_rl.envs import TaildropArguments

PREFERENCES = {
    "quality": {"reconstruction": 10.0, "efficiency": 0.1},
    "thrift": {"reconstruction": 0.1, "efficiency": 10.0},
}


@dataclass(frozen=True)
class Arguments:
    """Two preferences on vaportok/MO-Taildrop-v0."""

    steps: int = 384
    """Decisions to train each agent for."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def largest_difference(settings: TaildropArguments, seed: int) -> float:
    """Between what `LinearReward` and the scalar environment pay along one path, relative to rewards beyond 1."""
    vector = gymnasium.make("vaportok/MO-Taildrop-v0", **settings)
    linear = LinearReward(vector, weight=vector.get_wrapper_attr("reward_weights"))
    scalar = gymnasium.make("vaportok/Taildrop-v0", **settings)
    scalar.action_space.seed(seed)
    linear.reset(seed=seed)
    scalar.reset(seed=seed)
    difference, finished = 0.0, False
    while not finished:
        action = scalar.action_space.sample()
        _, paid, finished, _, _ = linear.step(action)
        expected = float(scalar.step(action)[1])
        difference = max(difference, abs(float(paid) - expected) / max(1.0, abs(expected)))
    return difference


class Trained(NamedTuple):
    """An agent, the names of the terms, and what its last paths got of each: ``float32 [paths, terms]``."""

    agent: A2C
    terms: tuple[str, ...]
    returns: NDArray[np.float32]


def train(preference: dict[str, float], settings: TaildropArguments, arguments: Arguments) -> Trained:
    """Trains an agent for one preference."""
    recorded = MORecordEpisodeStatistics(gymnasium.make("vaportok/MO-Taildrop-v0", **settings))
    terms = recorded.get_wrapper_attr("reward_terms")
    env = LinearReward(recorded, weight=np.array([preference.get(name, 0.0) for name in terms]))
    # Both preferences use clip terms only, which are paid at once, and actions do not change later clips: γ = 0 has the
    # same optimum as γ = 1 with less variance.
    agent = A2C(
        "MlpPolicy",
        env,
        learning_rate=0.003,
        n_steps=16,
        gamma=0.0,
        normalize_advantage=True,
        seed=arguments.seed,
        device="cpu",
    )
    agent.learn(arguments.steps)
    return Trained(agent, terms, np.stack(list(recorded.return_queue)[-32:]))


def main(arguments: Arguments) -> dict[str, Trained]:
    """Trains an agent for each preference."""
    settings: TaildropArguments = {
        "tokenizer": arguments.tokenizer,
        "path_length": arguments.path_length,
        "obs": "complexity",
    }
    print(f"LinearReward and the scalar environment differ by at most {largest_difference(settings, 0):.1e}")
    results = {name: train(preference, settings, arguments) for name, preference in PREFERENCES.items()}
    for name, (_, terms, returns) in results.items():
        print(f"{name}: " + ", ".join(f"{term} {mean:+.3f}" for term, mean in zip(terms, returns.mean(0), strict=True)))
    return results


if __name__ == "__main__":
    main(tyro.cli(Arguments))
