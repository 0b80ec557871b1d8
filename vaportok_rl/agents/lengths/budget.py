"""Optimal allocation of a token budget: AdapTok's integer programme, and the equal-slope rule.

Both use the measured error of every clip at every length. They bound what an allocation can reach at a given rate; they
cannot run on clips that have not been decoded.
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
    """The lengths with the minimum summed error within a budget, exactly.

    This is AdapTok's integer linear programme (arXiv 2505.17011) on measured instead of predicted errors, solved by
    dynamic programming.

    Args:
        mse: ``float64 [N, P, L]``, error of each clip at the lengths ``shortest`` … ``shortest + N - 1``.
        shortest: minimum tokens per clip.
        budget: maximum tokens per path, at least L times ``shortest``.

    Returns:
        ``int64 [P, L]``.
    """
    return best_sum(-mse, shortest, budget)


def equal_slopes(mse: Tensor, shortest: int, budget: int) -> Tensor:
    """The Lagrangian solution; arguments as for `least_errors`, and see `EqualSlope`.

    It is exact if errors are convex in the length; otherwise it may leave fewer tokens unspent than the next segment of
    the envelope costs.
    """
    paths = [EqualSlope.of(path.cpu().numpy(), shortest).lengths(budget) for path in mse.unbind(1)]
    return torch.from_numpy(np.stack(paths)).to(mse.device)


def budget_lengths(process: TaildropProcess, mean_tokens: int, allocate: Allocation) -> LengthPolicy:
    """Minimises each path's mean error at a mean length of ``mean_tokens``.

    The budget is per path, like the environment's `token_budget`. The environment's token range and a smaller budget
    are respected.

    Args:
        process: its engine measures the errors.
        mean_tokens: N in 1 … K.
        allocate: `least_errors` or `equal_slopes`.

    Raises:
        ValueError: N is outside 1 … K, or below the environment's minimum.
    """
    allowed, length = process.token_range, process.path_length
    if not allowed.minimum <= mean_tokens <= process.tokens:
        raise ValueError(
            f"Expected a mean length in {allowed.minimum}…{process.tokens}, got {mean_tokens}; write budget:N with the "
            "mean tokens per clip."
        )
    budget = min(mean_tokens * length, allowed.budget or mean_tokens * length)

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        mse = process.engine.score_all(scene).errors(allowed.minimum, allowed.longest).double()
        return LengthChoice.certain(allocate(mse, allowed.minimum, budget))

    return policy
