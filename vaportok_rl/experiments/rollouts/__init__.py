"""Rolls a policy out and stores what happened."""

from vaportok_rl.experiments.rollouts.playing import Episode, Rollout, rollout

__all__ = [
    "Episode",
    "Rollout",
    "rollout",
]
