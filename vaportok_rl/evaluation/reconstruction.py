"""Reconstruction quality: squared error, PSNR, explained variance."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(decoded: Tensor, clips: Tensor) -> Tensor:
    """Mean squared error of each clip.

    Args:
        decoded: ``float [B, C, T, H, W]`` in [0, 1].
        clips: the same shape, uint8 or float in [0, 1].

    Returns:
        ``float32 [B]``.
    """
    target = clips.float() / 255 if clips.dtype == torch.uint8 else clips
    return (decoded - target).square().flatten(1).mean(1)


def psnr(mse: Tensor, floor: float = 1e-10) -> Tensor:
    """Peak signal-to-noise ratio in decibels of errors on a [0, 1] scale, clamped at ``floor``."""
    return -10 * torch.log10(mse.clamp(min=floor))


def clip_variance(clips: Tensor) -> Tensor:
    """Variance of all pixel values of each clip, on a [0, 1] scale: ``[B, C, T, H, W]`` to ``float32 [B]``."""
    values = clips.float() / 255 if clips.dtype == torch.uint8 else clips.float()
    return values.flatten(1).var(1, correction=0)


def explained_variance(mse: Tensor, clips: Tensor, floor: float = 1e-6) -> Tensor:
    """``1 - mse / var(clip)``: 1 is perfect, 0 no better than the clip's mean colour.

    Args:
        mse: ``[..., B]``.
        clips: ``[B, C, T, H, W]``.
        floor: minimum variance, for constant clips.

    Returns:
        ``[..., B]``, at most 1.
    """
    return 1 - mse / clip_variance(clips).clamp(min=floor)
