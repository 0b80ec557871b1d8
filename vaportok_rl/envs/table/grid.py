"""At which lengths a table is measured, and what linear interpolation makes of the lengths between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


def length_grid(step: int | str, tokens: int) -> tuple[int, ...]:
    """The lengths a table is measured at: 1, the multiples of the step, and K.

    Starting the steps from 0 rather than from 1 makes the first gap the smallest: the error falls fastest there.

    Args:
        step: distance of neighbours, or ``"all"`` for 1.
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


@dataclass(frozen=True)
class InterpolationError:
    """How far interpolated errors are from measured ones, over the lengths that the grid leaves out.

    Attributes:
        clips: in the sample.
        lengths: left out by the grid.
        mean_absolute: of the mean squared error.
        max_absolute: of the mean squared error.
        mean_relative: the difference as a share of the measured error.
        max_relative: the difference as a share of the measured error.
    """

    clips: int
    lengths: int
    mean_absolute: float
    max_absolute: float
    mean_relative: float
    max_relative: float

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def interpolation_error(measured: Tensor, grid: Sequence[int]) -> InterpolationError:
    """Compares every length's measured error with what the grid alone would have told.

    Args:
        measured: ``float32 [N, K]``, the error at every length of a sample of clips.
        grid: increasing lengths, from 1 to K, at least one length left out.
    """
    tokens = measured.shape[1]
    points = torch.tensor(grid, device=measured.device) - 1
    skipped = torch.ones(tokens, dtype=torch.bool, device=measured.device)
    skipped[points] = False
    guessed = interpolate(measured[:, points], grid, tokens)
    truth = measured[:, skipped].double()
    absolute = (guessed[:, skipped].double() - truth).abs()
    relative = absolute / truth.clamp(min=1e-10)
    return InterpolationError(
        clips=len(measured),
        lengths=int(skipped.sum()),
        mean_absolute=absolute.mean().item(),
        max_absolute=absolute.max().item(),
        mean_relative=relative.mean().item(),
        max_relative=relative.max().item(),
    )
