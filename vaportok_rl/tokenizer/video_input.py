"""Brings user video to the model's float range and says clearly what is wrong with it."""

from __future__ import annotations

import torch
from torch import Tensor


def clips_to_float(clips: Tensor, clip_shape: tuple[int, int, int, int]) -> Tensor:
    """Checks clips and converts them to float in [0, 1].

    On an accelerator the range check is an asynchronous device assertion, because reading its result would stall the
    stream; on the CPU it raises.

    Args:
        clips: ``[B, C, T, H, W]``, uint8 or floating point.
        clip_shape: the expected ``(C, T, H, W)``.

    Returns:
        ``float32 [B, C, T, H, W]`` in [0, 1].

    Raises:
        ValueError: wrong shape, wrong dtype, NaN, or values outside [0, 1].
    """
    if clips.dim() != 5 or tuple(clips.shape[1:]) != clip_shape:
        raise ValueError(
            f"Expected clips of shape [B, {', '.join(map(str, clip_shape))}] (batch, channels, frames, height, width), "
            f"got {tuple(clips.shape)}; resize and cut the video to this tokenizer's geometry."
        )
    if clips.dtype == torch.uint8:
        return clips.float() / 255
    if not clips.is_floating_point():
        raise ValueError(f"Expected uint8 video or floats in [0, 1], got {clips.dtype}; convert with .to(torch.uint8).")
    inside = ((clips >= 0) & (clips <= 1)).all()
    if clips.device.type == "cpu":
        if not inside:
            low, high = clips.min().item(), clips.max().item()
            raise ValueError(
                f"Expected float video in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}; "
                "divide 0-255 video by 255 or pass uint8."
            )
    else:
        torch._assert_async(inside)
    return clips.float()
