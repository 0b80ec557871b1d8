"""What the best and worst choices would have earned, from an outcome that holds every length."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs import Outcome, VaporReward


def fixed_rewards(every: Outcome, reward: VaporReward) -> Tensor:
    """Path reward of each fixed length: ``[K, P]``; row g keeps n = g + 1 tokens of every clip."""
    return reward(every).total


def best_fixed_length(every: Outcome, reward: VaporReward) -> int:
    """The single length with the highest mean path reward over these scenes."""
    return int(fixed_rewards(every, reward).mean(1).argmax()) + 1


def _climb(every: Outcome, reward: VaporReward, lengths: Tensor, sign: float, sweeps: int) -> tuple[Tensor, Tensor]:
    """Coordinate ascent over the clips of each path; every step tries all K lengths of one clip."""
    tokens, (paths, length) = every.tokens, lengths.shape
    options = torch.arange(1, tokens + 1, device=lengths.device)[:, None].expand(-1, paths)
    for _ in range(sweeps):
        before = lengths
        for clip in range(length):
            tried = lengths.expand(tokens, -1, -1).clone()
            tried[:, :, clip] = options
            best = (sign * reward(every.take(tried)).total).argmax(0) + 1
            lengths = torch.cat([lengths[:, :clip], best[:, None], lengths[:, clip + 1 :]], dim=1)
        if torch.equal(lengths, before):
            break
    return lengths, sign * reward(every.take(lengths[None])).total[0]


def oracle_lengths(
    every: Outcome, reward: VaporReward, starts: tuple[Tensor, ...] = (), sweeps: int = 10, worst: bool = False
) -> Tensor:
    """Lengths that earn the most on each path.

    Clip terms are maximised exactly. A path term such as `diversity` couples the clips; coordinate ascent from
    several starting points then climbs to where no single length can be improved. Given the lengths of other
    policies as starts, the result is at least as good as each of them.

    Args:
        every: outcome with G = K whose row g holds n = g + 1 (`ScoringEngine.score_all`).
        reward: the reward to maximise; any terms.
        starts: further starting points, ``int64 [P, L]`` each.
        sweeps: most passes over the clips.
        worst: minimise instead.

    Returns:
        ``int64 [P, L]``.
    """
    sign = -1.0 if worst else 1.0
    by_clip = sign * reward(every).by_clip
    alone = by_clip.argmax(0) + 1
    # The path term of a fixed path is that of equal lengths; shorter and longer halves open other basins.
    order = every.complexity.sum(-1).argsort(1).argsort(1) * 2 >= every.complexity.shape[1]
    spread = torch.where(order, torch.full_like(alone, every.tokens), torch.ones_like(alone))
    best, best_reward = _climb(every, reward, alone, sign, sweeps)
    for start in (spread, *starts):
        found, earned = _climb(every, reward, start, sign, sweeps)
        better = earned > best_reward
        best = torch.where(better[:, None], found, best)
        best_reward = torch.where(better, earned, best_reward)
    return best
