"""A token budget per path, enforced by action masks: SB3-Contrib's MaskablePPO.

Run: pip install sb3-contrib; python examples/sb3_contrib_maskable_ppo.py --budget 64 --steps 4096

The environment's `action_masks()` allows only lengths that leave every later clip its minimum. MaskablePPO reads them
before each decision, so the environment never has to clip an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import tyro
from sb3_contrib import MaskablePPO

import vaportok_rl  # noqa: F401  (registers the environment)
from vaportok_rl.envs import TaildropArguments, make_sb3_env


@dataclass(frozen=True)
class Arguments:
    """MaskablePPO on vaportok/Taildrop-v0 with a token budget."""

    budget: int = 64
    """Maximum tokens per path."""
    minimum: int = 2
    """Minimum tokens per clip."""
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


def walk(agent: MaskablePPO, settings: TaildropArguments, seed: int) -> list[int]:
    """The agent's most probable lengths on one held-out path."""
    env = gymnasium.make("vaportok/Taildrop-v0", split="test", **settings)
    observation, _ = env.reset(seed=seed)
    lengths: list[int] = []
    finished = False
    while not finished:
        masks = env.get_wrapper_attr("action_masks")()
        action, _ = agent.predict(observation, action_masks=masks, deterministic=True)
        observation, _, finished, _, info = env.step(int(action))
        lengths.append(int(info["n_tokens"]))
    env.close()
    return lengths


def main(arguments: Arguments) -> tuple[MaskablePPO, list[int]]:
    """Trains; returns the agent and its lengths on one held-out path."""
    settings: TaildropArguments = {
        "tokenizer": arguments.tokenizer,
        "path_length": arguments.path_length,
        "min_tokens": arguments.minimum,
        "token_budget": arguments.budget,
        "obs": "complexity",
    }
    env = make_sb3_env(arguments.num_envs, **settings)
    agent = MaskablePPO(
        "MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=4, gamma=1.0, seed=arguments.seed, device="cpu"
    )
    agent.learn(arguments.steps)
    rewards = [episode["r"] for episode in agent.ep_info_buffer or ()]
    lengths = walk(agent, settings, arguments.seed)
    print(f"loss {agent.logger.name_to_value['train/loss']:.4f}, path reward {np.mean(rewards):.4f}")
    print(f"lengths along one held-out path: {lengths}, {sum(lengths)} of {arguments.budget} tokens")
    return agent, lengths


if __name__ == "__main__":
    main(tyro.cli(Arguments))
