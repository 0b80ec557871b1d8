"""Reward terms, their weights, constants and presets."""

from vaportok_rl.envs.rewards.contract import PixelTerm, RewardTerm, across_group, needs
from vaportok_rl.envs.rewards.dynamics import Constraint, Ramp
from vaportok_rl.envs.rewards.presets import DEFAULT_WEIGHTS, PRESETS, RewardOptions
from vaportok_rl.envs.rewards.reward import RewardResult, VaporReward, build_reward
from vaportok_rl.envs.rewards.terms import diversity, efficiency, generation, penalty, reconstruction

__all__ = [
    "DEFAULT_WEIGHTS",
    "PRESETS",
    "Constraint",
    "PixelTerm",
    "Ramp",
    "RewardOptions",
    "RewardResult",
    "RewardTerm",
    "VaporReward",
    "across_group",
    "build_reward",
    "diversity",
    "efficiency",
    "generation",
    "needs",
    "penalty",
    "reconstruction",
]
