"""Reward terms, their weights and presets."""

from vaportok_rl.envs.rewards.reward import (
    DEFAULT_WEIGHTS,
    RewardResult,
    RewardTerm,
    VaporReward,
    build_reward,
    diversity,
    efficiency,
    generation,
    penalty,
    reconstruction,
)

__all__ = [
    "DEFAULT_WEIGHTS",
    "RewardResult",
    "RewardTerm",
    "VaporReward",
    "build_reward",
    "diversity",
    "efficiency",
    "generation",
    "penalty",
    "reconstruction",
]
