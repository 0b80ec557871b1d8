"""Reconstructions to look at: contact sheets and side-by-side video."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.envs import Scene, ScoringEngine
from vaportok_rl.evaluation import psnr

Frames = NDArray[np.uint8]


def to_frames(video: Tensor) -> Frames:
    """Float video ``[C, T, H, W]`` in [0, 1] to ``uint8 [T, H, W, C]``."""
    return (video.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def enlarge(frames: Frames, size: int) -> Frames:
    """Repeats pixels so that the shorter side reaches ``size`` or more: ``[T, H, W, C]``."""
    factor = max(1, -(-size // min(frames.shape[1:3])))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def decoded_clips(engine: ScoringEngine, scene: Scene, n_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Originals and reconstructions as float clips: two of ``[P·L, C, T, H, W]``; ``n_tokens`` is ``int64 [P, L]``."""
    return scene.clips.flatten(0, 1).float() / 255, engine.reconstruct(scene, n_tokens).flatten(0, 1)


def spread_rows(score: Tensor, count: int) -> list[int]:
    """Clips evenly spread from the simplest to the most complex: ``[N]`` scores to at most ``count`` positions."""
    order = score.flatten().argsort()
    picks = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return order.cpu()[picks].tolist()


def contact_sheet(
    engine: ScoringEngine, scene: Scene, score: Tensor, chosen: dict[str, Tensor], count: int = 8
) -> Figure:
    """Middle frames of some clips: the original, fixed lengths 1, 4, 16, K, and what policies chose.

    Args:
        engine: decodes.
        scene: P scenes.
        score: complexity score ``[P, L]``; rows go from simple to complex.
        chosen: lengths ``int64 [P, L]`` by policy name, one column each.
        count: rows.
    """
    rows = spread_rows(score, count)
    tokens = scene.tokens
    columns: list[tuple[str, Tensor]] = [
        (f"n = {n}", torch.full_like(scene.ids, n)) for n in sorted({1, min(4, tokens), min(16, tokens), tokens})
    ]
    columns += list(chosen.items())
    originals = scene.clips.flatten(0, 1).float() / 255
    middle = originals.shape[2] // 2
    figure, axes = plt.subplots(
        len(rows), len(columns) + 1, figsize=(1.5 * (len(columns) + 1), 1.7 * len(rows)), squeeze=False
    )
    flat_codes = scene.codes.flatten(0, 1)[rows]
    for column, (title, lengths) in enumerate([("original", torch.full_like(scene.ids, tokens)), *columns]):
        kept = lengths.flatten()[rows]
        shown = originals[rows] if column == 0 else engine.world.decode(flat_codes, kept)
        quality = psnr((shown - originals[rows]).square().flatten(1).mean(1))
        for row, axis in enumerate(axes[:, column]):
            axis.imshow(to_frames(shown[row])[middle], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=9)
            if column:
                axis.set_xlabel(f"{kept[row].item()} tok · {quality[row].item():.1f} dB", fontsize=7, labelpad=2)
    figure.tight_layout(pad=0.4)
    return figure


def comparison_frames(engine: ScoringEngine, scene: Scene, n_tokens: Tensor, rows: list[int], size: int = 96) -> Frames:
    """Original, reconstruction and absolute error beside each other, with a bar of the tokens kept.

    Args:
        engine: decodes.
        scene: P scenes.
        n_tokens: ``int64 [P, L]``.
        rows: which of the P·L clips, stacked two side by side.
        size: height of a clip in pixels, at least.

    Returns:
        ``uint8 [T, H', W', 3]``.
    """
    originals = scene.clips.flatten(0, 1)[rows].float() / 255
    kept = n_tokens.flatten()[rows]
    decoded = engine.world.decode(scene.codes.flatten(0, 1)[rows], kept)
    tiles = []
    for original, again, length in zip(originals, decoded, kept.tolist(), strict=True):
        parts = [enlarge(to_frames(part), size) for part in (original, again, (original - again).abs())]
        strip = np.concatenate(parts, axis=2)
        bar = np.full((strip.shape[0], 6, strip.shape[2], 3), 40, dtype=np.uint8)
        bar[:, :, : max(1, strip.shape[2] * length // scene.tokens)] = (90, 200, 120)
        tiles.append(np.concatenate([strip, bar], axis=1))
    if len(tiles) % 2:
        tiles.append(np.zeros_like(tiles[0]))
    pairs = [np.concatenate(tiles[i : i + 2], axis=2) for i in range(0, len(tiles), 2)]
    whole = np.concatenate(pairs, axis=1)
    # Video codecs want even sides.
    return np.pad(whole, ((0, 0), (0, whole.shape[1] % 2), (0, whole.shape[2] % 2), (0, 0)))


def write_video(path: Path, frames: Frames, fps: int = 8) -> Path:
    """Writes an H.264 MP4 that plays the frames three times over (clips are short)."""
    looped = np.concatenate([frames] * 3)
    imageio.imwrite(path, looped, plugin="FFMPEG", fps=fps, macro_block_size=1, ffmpeg_log_level="error")
    return path


def gif_bytes(frames: Frames, fps: int = 8) -> bytes:
    """The frames as an animated GIF."""
    data: bytes = imageio.imwrite("<bytes>", frames, extension=".gif", plugin="pillow", duration=1000 // fps, loop=0)
    return data
