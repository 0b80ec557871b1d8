"""Token budgets spent optimally: AdapTok's integer programme, and the equal-slope rule that checks it.

Both know the error of every clip at every length. They are bounds on what an allocation can reach at a given rate, not
policies that could be used on clips that have not been decoded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy
from vaportok_rl.agents.oracle import best_sum
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.evaluation.equal_slope import EqualSlope

Allocation = Callable[[Tensor, int, int], Tensor]
"""Errors ``float64 [N, P, L]`` at the lengths shortest … shortest + N - 1, shortest and budget, to ``int64 [P, L]``."""


def least_errors(mse: Tensor, shortest: int, budget: int) -> Tensor:
    """The lengths with the least summed error within a budget, exactly.

    This is the integer linear programme of AdapTok (arXiv 2505.17011), over measured instead of predicted errors; each
    clip takes one length. Dynamic programming solves it.

    Args:
        mse: ``float64 [N, P, L]``, error of each clip at the lengths ``shortest`` … ``shortest + N - 1``.
        shortest: fewest tokens of a clip.
        budget: most tokens of a path, at least L times ``shortest``.

    Returns:
        ``int64 [P, L]``.
    """
    return best_sum(-mse, shortest, budget)


def equal_slopes(mse: Tensor, shortest: int, budget: int) -> Tensor:
    """The Lagrangian solution; arguments as for `least_errors`, and see `EqualSlope`.

    Where errors are convex in the length it is the exact one; otherwise it may leave a few tokens unspent, fewer than
    the next segment of the envelope would cost.
    """
    paths = [EqualSlope.of(path.cpu().numpy(), shortest).lengths(budget) for path in mse.unbind(1)]
    return torch.from_numpy(np.stack(paths)).to(mse.device)


def budget_lengths(process: TaildropProcess, mean_tokens: int, allocate: Allocation) -> LengthPolicy:
    """Spends ``mean_tokens`` a clip, on average over each path, so that the path's mean error is least.

    The budget is the path's own, as the environment's `token_budget` is: the same path then gets the same lengths
    whatever else is scored with it. Within a token range or a smaller budget of the environment it keeps to them.

    Args:
        process: its engine measures the errors.
        mean_tokens: N in 1 … K.
        allocate: `least_errors` or `equal_slopes`.

    Raises:
        ValueError: N is outside 1 … K, or fewer tokens than the environment keeps of every clip.
    """
    allowed, length = process.token_range, process.path_length
    if not allowed.minimum <= mean_tokens <= process.tokens:
        raise ValueError(
            f"Expected a mean length in {allowed.minimum}…{process.tokens}, got {mean_tokens}; write budget:N with the "
            "tokens a clip may keep on average."
        )
    budget = min(mean_tokens * length, allowed.budget or mean_tokens * length)

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        mse = process.engine.score_all(scene).errors(allowed.minimum, allowed.longest).double()
        return LengthChoice.certain(allocate(mse, allowed.minimum, budget))

    return policy
