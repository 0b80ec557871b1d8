"""The lengths at which a table is measured, linear interpolation between them, and its error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def length_grid(step: int | str, tokens: int) -> tuple[int, ...]:
    """The lengths at which a table is measured: 1, the multiples of the step, and K.

    The multiples start from 0, so the first gap is the smallest: the error falls fastest there.

    Args:
        step: distance between lengths, or ``"all"`` for 1.
        tokens: K.

    Raises:
        ValueError: the step is neither ``"all"`` nor a whole number above 0.
    """
    try:
        width = 1 if step == "all" else int(step)
    except ValueError:
        width = 0
    if width < 1:
        raise ValueError(f"Expected a grid step ≥ 1 or 'all', got {step!r}; for example 4, or all for every length.")
    return tuple(sorted({1, tokens, *range(width, tokens + 1, width)}))


def interpolate(values: Tensor, grid: Sequence[int], tokens: int) -> Tensor:
    """Linear interpolation between grid points; exact at them.

    Args:
        values: ``float32 [..., len(grid)]``.
        grid: increasing lengths, from 1 to K.
        tokens: K.

    Returns:
        ``float32 [..., K]``; entry n - 1 belongs to length n.
    """
    if len(grid) == tokens:
        return values
    points = torch.tensor(grid, device=values.device)
    lengths = torch.arange(1, tokens + 1, device=values.device)
    upper = torch.searchsorted(points, lengths).clamp(min=1)
    low, high = points[upper - 1], points[upper]
    share = (lengths - low).double() / (high - low)
    left, right = values[..., upper - 1].double(), values[..., upper].double()
    return torch.where(lengths == high, right, left + share * (right - left)).float()


def interpolation_error(measured: Tensor, grid: Sequence[int]) -> dict[str, float]:
    """The error of interpolation at the lengths that a grid leaves out.

    Args:
        measured: ``float32 [N, K]``, mean squared error at every length of a sample of clips.
        grid: increasing lengths, from 1 to K, at least one length left out.

    Returns:
        ``clips`` and ``lengths``, how many were compared; ``mean_absolute`` and ``max_absolute``, the differences in
        mean squared error; ``mean_relative`` and ``max_relative``, the same as shares of the measured error.
    """
    tokens = measured.shape[1]
    points = torch.tensor(grid, device=measured.device) - 1
    skipped = torch.ones(tokens, dtype=torch.bool, device=measured.device)
    skipped[points] = False
    guessed = interpolate(measured[:, points], grid, tokens)
    truth = measured[:, skipped].double()
    absolute = (guessed[:, skipped].double() - truth).abs()
    relative = absolute / truth.clamp(min=1e-10)
    return {
        "clips": len(measured),
        "lengths": int(skipped.sum()),
        "mean_absolute": absolute.mean().item(),
        "max_absolute": absolute.max().item(),
        "mean_relative": relative.mean().item(),
        "max_relative": relative.max().item(),
    }
