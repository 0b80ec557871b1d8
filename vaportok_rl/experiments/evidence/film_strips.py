"""Clips side by side: film strips in a picture, and an animation whose pixels are enlarged by whole factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vaportok_rl.envs.render.drawing import Frames, to_frames
from vaportok_rl.runtime.whole_writes import whole_write

Strip = tuple[str, Tensor]
"""A caption, and a clip ``[3, T, H, W]``, uint8 or float in [0, 1]."""
ANIMATION_BYTES = 2_000_000
_FRAMES = 4
_LABEL, _GAP = 14, 6


def strips_figure(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Strip]]]) -> Figure:
    """Frames of clips from first to last, one clip per cell.

    Args:
        title: of the picture.
        columns: their headings.
        rows: a heading and a strip for each column.
    """
    drawn = Figure(figsize=(0.9 + 2.6 * len(columns), 0.5 + 0.85 * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), len(columns), squeeze=False)
    for (heading, strips), places in zip(rows, axes, strict=True):
        for axis, (caption, clip) in zip(places, strips, strict=True):
            frames = to_frames(clip)
            moments = torch.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().long()
            axis.imshow(np.concatenate(frames[moments.numpy()], 1), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(caption, fontsize=7, labelpad=1)
        places[0].set_ylabel(heading, fontsize=8, rotation=0, ha="right", va="center")
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(heading, fontsize=9)
    drawn.suptitle(title, fontsize=10)
    return drawn


def pairs_frames(pairs: Sequence[tuple[str, Tensor, Tensor]], columns: int = 6, scale: int = 2) -> Frames:
    """Pairs of clips side by side in a grid, each under its name.

    Args:
        pairs: name, left and right clip, ``uint8 [3, T, H, W]`` of one shape.
        columns: pairs in a row.
        scale: whole factor by which pixels are enlarged.

    Returns:
        ``uint8 [T, H', W', 3]``.
    """
    _, count, height, width = pairs[0][1].shape
    across, down = 2 * width * scale + _GAP, height * scale + _LABEL + _GAP
    size = (min(columns, len(pairs)) * across + _GAP, -(-len(pairs) // columns) * down + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    corners = [(_GAP + place % columns * across, _GAP + place // columns * down) for place in range(len(pairs))]
    for (x, y), (name, _, _) in zip(corners, pairs, strict=True):
        draw.text((x, y), name, "black", font)
    frames = np.repeat(np.array(sheet)[None], count, 0)
    for (x, y), (_, left, right) in zip(corners, pairs, strict=True):
        both = np.concatenate([to_frames(left), to_frames(right)], 2).repeat(scale, 1).repeat(scale, 2)
        frames[:, y + _LABEL : y + _LABEL + both.shape[1], x : x + both.shape[2]] = both
    return frames


def write_animation(path: Path, frames: Frames, fps: int = 8) -> Path:
    """Writes ``uint8 [T, H, W, 3]`` as an endless WebP of less than 2 MB: lossless, or else at the best quality.

    Raises:
        ValueError: it is too large at any quality.
    """
    first, *others = map(Image.fromarray, frames)
    lossless: dict[str, int | bool] = {"lossless": True}
    for options in (lossless, *({"quality": quality} for quality in (95, 85, 70, 50))):
        with whole_write(path) as scratch:
            first.save(
                scratch, "WEBP", save_all=True, append_images=others, duration=1000 // fps, loop=0, method=4, **options
            )
        if path.stat().st_size < ANIMATION_BYTES:
            return path
    raise ValueError(
        f"Expected an animation of less than {ANIMATION_BYTES:,} bytes, got {path.stat().st_size:,} at {path}; show "
        "fewer clips."
    )
