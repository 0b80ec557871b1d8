"""The plain Gymnasium loop: random lengths on one scene, with the reward of each decision.

Run: python examples/random_walk.py
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import tyro

import vaportok_rl  # noqa: F401  (registers the environment)


@dataclass(frozen=True)
class Arguments:
    """Random lengths on vaportok/Taildrop-v0."""

    tokenizer: str = "nano"
    """The frozen tokenizer."""
    clips: str = "procedural"
    """`procedural`, or a folder of videos."""
    seed: int = 0
    """Seed of the scene and the actions."""


def main(arguments: Arguments) -> float:
    """Walks one scene and returns the path reward."""
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=arguments.tokenizer, clips=arguments.clips)
    env.action_space.seed(arguments.seed)
    env.reset(seed=arguments.seed)
    total, finished = 0.0, False
    while not finished:
        _, reward, finished, _, info = env.step(env.action_space.sample())
        total += float(reward)
        print(f"kept {info['n_tokens']:3d} tokens: {info['psnr']:5.2f} dB, reward {float(reward):+.4f}")
    print(f"path reward {total:.4f}")
    return total


if __name__ == "__main__":
    main(tyro.cli(Arguments))
