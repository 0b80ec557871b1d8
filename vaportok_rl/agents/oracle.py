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


def _spread_starts(by_clip: Tensor) -> list[Tensor]:
    """Starting points ``int64 [P, L]`` from which a path term's optima are reached.

    The best equal lengths; and, for each k, the k clips that lose least by it long and the others short, at the ends
    of the range and at the best lengths of either half.

    Args:
        by_clip: ``[K, P, L]``, what each length of each clip earns when the path's lengths are equal.
    """
    tokens, paths, length = by_clip.shape
    equal = by_clip.mean(-1).argmax(0) + 1
    starts = [equal[:, None].expand(paths, length)]
    half = (tokens + 1) // 2
    short, long = by_clip[:half], by_clip[half:] if tokens > 1 else by_clip
    ends = (torch.ones_like(by_clip[0], dtype=torch.int64), torch.full_like(by_clip[0], tokens, dtype=torch.int64))
    halves = (short.argmax(0) + 1, long.argmax(0) + 1 + tokens - len(long))
    for low, high in (ends, halves):
        gain = (by_clip.gather(0, (high - 1)[None]) - by_clip.gather(0, (low - 1)[None]))[0]
        rank = gain.argsort(1, descending=True).argsort(1)
        starts += [torch.where(rank < count, high, low) for count in range(1, length)]
    return starts


def oracle_lengths(
    every: Outcome, reward: VaporReward, starts: tuple[Tensor, ...] = (), sweeps: int = 10, worst: bool = False
) -> Tensor:
    """Lengths that earn the most on each path.

    Clip terms are maximised exactly. A path term such as `diversity` couples the clips; coordinate ascent from
    many starting points then climbs to where no single length can be improved, which in trials against brute force
    was the optimum of nearly every path. Given the lengths of other policies as starts, the result is at least as
    good as each of them.

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
    best = by_clip.argmax(0) + 1
    best_reward = torch.full_like(by_clip[0, :, 0], -torch.inf)
    for start in (best, *_spread_starts(by_clip), *starts):
        found, earned = _climb(every, reward, start, sign, sweeps)
        better = earned > best_reward
        best = torch.where(better[:, None], found, best)
        best_reward = torch.where(better, earned, best_reward)
    return best
