"""Best and worst lengths on known outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor

from vaportok_rl.envs import OutcomeOfAllLengths, VaporReward
from vaportok_rl.envs.token_range import Purse, TokenRange


def best_fixed_length(every: OutcomeOfAllLengths, reward: VaporReward, allowed: TokenRange | None = None) -> int:
    """The fixed length with the highest mean path reward, after clipping to a token range and a budget."""
    kept = every if allowed is None else every.take(allowed.clip_paths(every.n_tokens))
    return int(reward(kept, grouped=False).total.mean(1).argmax()) + 1


def oracle_lengths(
    every: OutcomeOfAllLengths,
    reward: VaporReward,
    starts: tuple[Tensor, ...] = (),
    sweeps: int = 10,
    worst: bool = False,
    allowed: TokenRange | None = None,
) -> Tensor:
    """The allowed lengths with the highest reward on each path.

    Clip terms are maximised exactly, also under a budget. A path term such as `diversity` couples the clips; then
    coordinate ascent from many starts ends where no single length can be improved (under a budget, no pair with the
    same sum either). Against brute force it found the optimum of nearly every path. The result is at least as good as
    each of ``starts``.

    Args:
        every: outcomes of the paths' clips.
        reward: any reward.
        starts: further starting points, ``int64 [P, L]`` each.
        sweeps: maximum passes over the clips.
        worst: minimise instead.
        allowed: the lengths to search; all by default.

    Returns:
        ``int64 [P, L]``.
    """
    searched = allowed or TokenRange(every.tokens, every.mse.shape[2])
    sign = -1.0 if worst else 1.0
    by_clip = sign * reward(every, grouped=False).by_clip
    best = best_sum(by_clip[searched.minimum - 1 : searched.longest], searched.minimum, searched.budget)
    best_reward = torch.full_like(by_clip[0, :, 0], -torch.inf)
    for start in (best, *_spread_starts(by_clip, searched), *starts):
        found, earned = _climb(every, reward, searched.clip_paths(start), sign, sweeps, searched)
        better = earned > best_reward
        best = torch.where(better[:, None], found, best)
        best_reward = torch.where(better, earned, best_reward)
    return best


def _climb(
    every: OutcomeOfAllLengths, reward: VaporReward, lengths: Tensor, sign: float, sweeps: int, allowed: TokenRange
) -> tuple[Tensor, Tensor]:
    """Coordinate ascent over the clips of each path; each step takes the best neighbour."""

    def total(tried: Tensor) -> Tensor:
        return sign * reward(every.take(tried), grouped=False).total

    earned = total(lengths[None])[0]
    for _ in range(sweeps):
        before = earned
        for neighbours in _moves(lengths.shape[1], allowed):
            tried, possible = neighbours(lengths)
            gains = total(tried).masked_fill(~possible, -torch.inf)
            best, at = gains.max(0)
            better = best > earned
            chosen = tried[at, torch.arange(len(at), device=at.device)]
            lengths = torch.where(better[:, None], chosen, lengths)
            earned = torch.where(better, best, earned)
        if torch.equal(earned, before):
            break
    return lengths, earned


def _moves(length: int, allowed: TokenRange) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The steps of one sweep: lengths ``[P, L]`` to neighbours ``[N, P, L]`` and a mask of allowed ones ``[N, P]``.

    First all lengths of each clip; under a budget, then all splits of two clips' sum.
    """
    low, high = allowed.minimum, allowed.longest

    def change(lengths: Tensor, clip: int, other: int | None) -> tuple[Tensor, Tensor]:
        options = torch.arange(low, high + 1, device=lengths.device)[:, None].expand(-1, len(lengths))
        tried = lengths.expand(len(options), -1, -1).clone()
        tried[:, :, clip] = options
        if other is None:
            possible = torch.ones_like(options, dtype=torch.bool)
            return tried, possible if allowed.budget is None else tried.sum(-1) <= allowed.budget
        rest = lengths[:, clip] + lengths[:, other] - options
        tried[:, :, other] = rest.clamp(low, high)
        return tried, (rest >= low) & (rest <= high)

    for clip in range(length):
        yield lambda lengths, clip=clip: change(lengths, clip, None)  # type: ignore[misc]
    if allowed.budget is not None:
        for clip, other in combinations(range(length), 2):
            yield lambda lengths, clip=clip, other=other: change(lengths, clip, other)  # type: ignore[misc]


def best_sum(values: Tensor, shortest: int, budget: int | None) -> Tensor:
    """Lengths with the highest sum of the clips' values; under a budget, a multiple-choice knapsack, solved exactly.

    Args:
        values: ``[N, P, L]``, each clip's value at the lengths ``shortest`` … ``shortest + N - 1``.
        shortest: minimum tokens per clip.
        budget: maximum tokens per path, at least L times ``shortest``; no limit if None.

    Returns:
        ``int64 [P, L]``.
    """
    if budget is None:
        return values.argmax(0) + shortest
    options, _, length = values.shape
    spare = min(budget - shortest * length, (options - 1) * length)
    return best_spending(values, Purse(spare, 0, spare)) + shortest


def best_spending(values: Tensor, purse: Purse, held: Tensor | None = None, afterwards: Tensor | None = None) -> Tensor:
    """What to spend on each clip for the highest sum of values, by exact dynamic programming over the purse.

    Args:
        values: ``[N, P, L]``, each clip's value if 0 … N - 1 tokens beyond the minimum are spent on it.
        purse: what may be spent.
        held: ``int64 [P]``, what each path's purse holds at its first clip; the purse's start by default.
        afterwards: ``[capacity + 1]``, the value of what is left after the last clip; 0 by default.

    Returns:
        ``int64 [P, L]``, tokens beyond the minimum.
    """
    _, paths, length = values.shape
    worth = values.new_zeros(paths, purse.capacity + 1)
    if afterwards is not None:
        worth = worth + afterwards
    decisions = []
    for clip in reversed(range(length)):
        worth, decision = spend_once(values[:, :, clip], purse, worth)
        decisions.append(decision)
    left = torch.full((paths,), purse.start, device=values.device) if held is None else held
    columns = []
    for decision in reversed(decisions):
        spent_here = decision.gather(1, left[:, None])[:, 0]
        left = purse.after(left, spent_here)
        columns.append(spent_here)
    return torch.stack(columns, 1)


def spend_once(values: Tensor, purse: Purse, worth: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the dynamic programme: the best to spend on one clip, for everything the purse may hold.

    Args:
        values: ``[N, P]``, the clip's value if 0 … N - 1 tokens beyond the minimum are spent on it.
        purse: what may be spent.
        worth: ``[P, capacity + 1]`` or ``[1, capacity + 1]``, what the purse is worth after the clip.

    Returns:
        What it is worth before the clip, and the tokens to spend, both ``[P, capacity + 1]``.
    """
    options, paths = values.shape
    amounts = torch.arange(purse.capacity + 1, device=values.device)
    best = values.new_full((paths, len(amounts)), -torch.inf)
    decision = torch.zeros_like(best, dtype=torch.int64)
    for spent in range(min(options, len(amounts))):
        candidate = values[spent, :, None] + worth[:, purse.after(amounts[spent:], spent)]
        better = candidate > best[:, spent:]
        best[:, spent:] = torch.where(better, candidate, best[:, spent:])
        decision[:, spent:][better] = spent
    return best, decision


def _spread_starts(by_clip: Tensor, allowed: TokenRange) -> list[Tensor]:
    """Starting points ``int64 [P, L]`` for rewards with path terms.

    The best fixed length; and for each k, the k clips that lose least long and the rest short, once at the ends of the
    range and once at the best lengths of its two halves.

    Args:
        by_clip: ``[K, P, L]``, each clip's reward at each length when the path's lengths are equal.
        allowed: the lengths to search.
    """
    low = allowed.minimum
    values = by_clip[low - 1 : allowed.longest]
    tokens, paths, length = values.shape
    spare = tokens * length if allowed.budget is None else allowed.budget - low * length
    equal = values[: spare // length + 1].mean(-1).argmax(0)
    starts = [equal[:, None].expand(paths, length)]
    half = (tokens + 1) // 2
    short, long = values[:half], values[half:] if tokens > 1 else values
    best_short, best_long = short.argmax(0), long.argmax(0) + tokens - len(long)
    for count in range(1, length):
        longest = torch.full_like(best_long, min(tokens - 1, spare // count))
        for few, many in ((torch.zeros_like(longest), longest), (best_short, torch.minimum(best_long, longest))):
            gain = (values.gather(0, many[None]) - values.gather(0, few[None]))[0]
            rank = gain.argsort(1, descending=True).argsort(1)
            starts.append(torch.where(rank < count, many, few))
    return [start + low for start in starts]
