"""The exact expected reward of a length policy, from the outcomes of all lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.envs.scene import OutcomeOfAllLengths


def clip_rewards(every: OutcomeOfAllLengths, reward: VaporReward) -> Tensor:
    """The reward of each length of each clip, for a reward without path terms.

    Args:
        every: of the clips.
        reward: its path terms must have weight 0.

    Returns:
        ``float32 [P, L, K]``; entry a is the length n = a + 1. Its maximum over a is the oracle's reward; the mean
        over L of chosen entries is the path reward.

    Raises:
        ValueError: a path term has a weight.
    """
    result = reward(every, grouped=False)
    across = [name for name, value in result.raw.items() if value.dim() == 2 and result.weights[name]]
    if across:
        raise ValueError(
            f"Expected a reward of clip terms, got a weight for {', '.join(across)}, which looks across a path; set "
            "its weight to 0, or estimate by sampling."
        )
    paid = [result.weights[name] * value for name, value in result.raw.items() if value.dim() == 3]
    return torch.stack(paid).sum(0).permute(1, 2, 0)


def expected_reward(log_probs: Tensor, every: OutcomeOfAllLengths, reward: VaporReward) -> Tensor:
    """The exact expected path reward of a policy that chooses each clip's length independently.

    Its gradient by ``log_probs`` is the exact policy gradient: no sampling, no baseline.

    Args:
        log_probs: ``float [P, L, K]``, normalised over the last axis; entry a is the length n = a + 1.
        every: of the clips.
        reward: as for `clip_rewards`.

    Returns:
        ``float [P]``.

    Raises:
        ValueError: the shapes do not fit, or as for `clip_rewards`.
    """
    earned = clip_rewards(every, reward)
    if log_probs.shape != earned.shape:
        raise ValueError(
            f"Expected log_probs [P, L, K] = {tuple(earned.shape)}, got {tuple(log_probs.shape)}; one distribution a "
            "clip."
        )
    return (log_probs.exp() * earned).sum(-1).mean(-1)
