"""Token budgets spent optimally: the integer programme of AdapTok and the equal-slope rule that checks it.

Both know the error of every clip at every length. They are bounds on what an allocation can reach at a given rate, not
policies that could be used on clips that have not been decoded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, sparse

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.evaluation.equal_slope import EqualSlope

Allocation = Callable[[NDArray[np.float64], int, int], NDArray[np.int64]]
"""Errors ``[K, L]`` at the lengths shortest … shortest + K - 1, the shortest length and the budget, to ``[L]``."""


def integer_programme(mse: NDArray[np.float64], shortest: int, budget: int) -> NDArray[np.int64]:
    """The lengths with the least summed error within a budget, exactly.

    One binary variable for each clip and length; each clip takes one length (the integer linear programme of AdapTok,
    arXiv 2505.17011, over measured instead of predicted errors). Solved by HiGHS to optimality.

    Args:
        mse: ``[K, L]``, error of each clip at the lengths ``shortest`` … ``shortest + K - 1``.
        shortest: fewest tokens of a clip.
        budget: most tokens of all clips together, at least L times ``shortest``.

    Returns:
        ``int64 [L]``.
    """
    options, clips = mse.shape
    one_each = sparse.kron(np.ones((1, options)), sparse.identity(clips), format="csc")
    spent = np.repeat(np.arange(shortest, shortest + options), clips)[None]
    found = optimize.milp(
        mse.ravel() / max(float(mse.max()), np.finfo(np.float64).tiny),
        integrality=np.ones(mse.size, dtype=np.int64),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(spent, -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"Expected a budget that an allocation meets, got {budget}: {found.message}.")
    lengths: NDArray[np.int64] = found.x.reshape(options, clips).argmax(0) + shortest
    return lengths


def equal_slopes(mse: NDArray[np.float64], shortest: int, budget: int) -> NDArray[np.int64]:
    """The Lagrangian solution; arguments as for `integer_programme`, and see `EqualSlope`.

    Where errors are convex in the length it is the integer programme's; otherwise it may leave a few tokens unspent,
    fewer than the next segment of the envelope would cost.
    """
    return EqualSlope.of(mse, shortest).lengths(budget)


def budget_lengths(process: TaildropProcess, mean_tokens: int, allocate: Allocation) -> LengthPolicy:
    """Spends ``mean_tokens`` a clip, on average over each path, so that the path's mean error is least.

    The budget is the path's own, as the environment's `token_budget` is: the same path then gets the same lengths
    whatever else is scored with it. Within a token range or a smaller budget of the environment it keeps to them.

    Args:
        process: its engine measures the errors.
        mean_tokens: N in 1 … K.
        allocate: `integer_programme` or `equal_slopes`.

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
        mse = process.engine.score_all(scene).errors(allowed.minimum, allowed.longest).double().cpu().numpy()
        paths = [allocate(mse[:, path], allowed.minimum, budget) for path in range(scene.shape[0])]
        return LengthChoice.certain(torch.from_numpy(np.stack(paths)).to(scene.codes.device))

    return policy
