"""Reward terms, their weights, constants and presets."""

from vaportok_rl.envs.rewards.contract import RewardTerm
from vaportok_rl.envs.rewards.presets import DEFAULT_WEIGHTS, PRESETS, RewardOptions
from vaportok_rl.envs.rewards.reward import RewardResult, VaporReward, build_reward
from vaportok_rl.envs.rewards.terms import diversity, efficiency, generation, penalty, reconstruction

__all__ = [
    "DEFAULT_WEIGHTS",
    "PRESETS",
    "RewardOptions",
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
