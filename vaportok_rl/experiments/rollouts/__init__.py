"""Rollouts of policies: as rows, as a video, and as a Minari dataset."""

from vaportok_rl.experiments.rollouts.playing import Episode, Rollout, rollout

__all__ = [
    "Episode",
    "Rollout",
    "rollout",
]
