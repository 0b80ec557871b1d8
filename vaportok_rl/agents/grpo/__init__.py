"""Parallel-group GRPO, a Stable-Baselines3 algorithm."""

from vaportok_rl.agents.grpo.algorithm import GRPO

__all__ = ["GRPO"]
