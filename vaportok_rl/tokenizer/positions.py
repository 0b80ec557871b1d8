"""Sin-cos position tables in LARP's layout (all sines first, then all cosines; float64 until the end)."""

from __future__ import annotations

import torch
from torch import Tensor


def line_table(channels: int, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Sin-cos embedding of positions on a line.

    Args:
        channels: even number of channels.
        positions: ``[N]``, raw positions.
        base: the longest wavelength is ``2π·base``.

    Returns:
        ``float64 [N, channels]``.
    """
    half = channels // 2
    rates = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.to(torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def latent_table(channels: int, tokens: int, base: float) -> Tensor:
    """Positions of the K latents in the decoder: ``float32 [1, K, channels]``."""
    return line_table(channels, torch.arange(tokens), base)[None].float()


def patch_table(channels: int, grid: tuple[int, int, int]) -> Tensor:
    """Positions of the patches, row-major over (time, height, width).

    The first half of the channels holds the column, the second half the row; the full-width temporal table is added.

    Args:
        channels: divisible by 4.
        grid: patches along time, height and width.

    Returns:
        ``float32 [1, P, channels]``.
    """
    times, rows, columns = (
        index.reshape(-1) for index in torch.meshgrid(*(torch.arange(count) for count in grid), indexing="ij")
    )
    space = torch.cat([line_table(channels // 2, columns), line_table(channels // 2, rows)], dim=1)
    return (space + line_table(channels, times))[None].float()
