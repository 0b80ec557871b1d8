"""Checks user video and converts it to the model's float range."""

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
        ValueError: not a tensor, wrong shape, wrong dtype, NaN, or values outside [0, 1].
    """
    if not isinstance(clips, Tensor):
        raise ValueError(
            f"Expected clips as a torch.Tensor, got {type(clips).__name__}; convert with torch.as_tensor(clips)."
        )
    if tuple(clips.shape[1:]) != clip_shape:
        raise ValueError(
            f"Expected clips of shape [B, {', '.join(map(str, clip_shape))}] (batch, channels, frames, height, width), "
            f"got {tuple(clips.shape)}; {_shape_advice(tuple(clips.shape), clip_shape)}."
        )
    if clips.dtype == torch.uint8:
        return clips.float() / 255
    if not clips.is_floating_point():
        raise ValueError(
            f"Expected uint8 video or floats in [0, 1], got {clips.dtype}; convert with .to(torch.uint8) if the values "
            "are 0-255."
        )
    # A comparison with NaN is false, so this refuses NaN too.
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


def _shape_advice(shape: tuple[int, ...], clip_shape: tuple[int, int, int, int]) -> str:
    """Advice on how to turn video of a wrong shape into clips."""
    channels, *frame_sizes = clip_shape
    if shape == clip_shape:
        return "add the batch axis with clips[None]"
    if len(shape) == 5 and list(shape[1:4]) == frame_sizes:
        return "move the channels from last to second with clips.permute(0, 4, 1, 2, 3)"
    if len(shape) == 5 and list(shape[2:]) == frame_sizes:
        given = shape[1]
        if channels == 1:
            return "reduce it to one grey channel with clips[:, :3].float().mean(1, keepdim=True).to(clips.dtype)"
        if given == 1:
            return f"repeat the grey channel with clips.expand(-1, {channels}, -1, -1, -1)"
        if given == 4:
            return "drop the alpha channel with clips[:, :3]"
        return "convert the video to RGB"
    if len(shape) == 5 and (shape[2], shape[1], *shape[3:]) == clip_shape:
        return "swap channels and frames with clips.transpose(1, 2)"
    return "resize and cut the video to this tokenizer's geometry"
