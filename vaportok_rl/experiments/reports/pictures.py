"""Pictures of reconstructions: contact sheets and side-by-side video."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaportok_rl.envs import Engine, Scene
from vaportok_rl.envs.render.drawing import Frames as Frames
from vaportok_rl.envs.render.drawing import render_decision, tile_frames
from vaportok_rl.envs.render.drawing import to_frames as to_frames
from vaportok_rl.evaluation import psnr


def spread_rows(score: Tensor, count: int) -> list[int]:
    """Positions of at most ``count`` clips, evenly spread from simple to complex, of scores ``[N]``."""
    order = score.flatten().argsort()
    picks = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return order.cpu()[picks].tolist()


def legible_rows(score: Tensor, clips: Tensor, count: int) -> list[int]:
    """The clip of the strongest contrast in each of ``count`` equal ranges of complexity, from simple to complex.

    Flat, dark clips show nothing at this size.

    Args:
        score: complexity scores ``[N]``.
        clips: ``[N, 3, T, H, W]``.
        count: maximum number.
    """
    contrast = clips[:, :, clips.shape[2] // 2].float().flatten(1).std(1)
    ranges = score.flatten().argsort().tensor_split(min(count, score.numel()))
    return [int(rows[contrast[rows].argmax()]) for rows in ranges]


def contact_sheet(engine: Engine, scene: Scene, score: Tensor, chosen: dict[str, Tensor], count: int = 8) -> Figure:
    """Middle frames of some clips: the original, and reconstructions at fixed and at the policies' lengths.

    Args:
        engine: decodes.
        scene: P scenes.
        score: complexity score ``[P, L]``, which orders the rows.
        chosen: lengths ``int64 [P, L]`` by policy, a column each.
        count: rows.
    """
    originals = scene.clips.flatten(0, 1).float() / 255
    rows = legible_rows(score.flatten(), originals, count)
    tokens = scene.tokens
    columns: list[tuple[str, Tensor]] = [
        (f"n = {n}", torch.full_like(scene.ids, n)) for n in sorted({1, min(4, tokens), min(16, tokens), tokens})
    ]
    columns += list(chosen.items())
    middle = originals.shape[2] // 2
    figure = Figure(figsize=(1.5 * (len(columns) + 1), 1.7 * len(rows)))
    axes = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    complexity = score.flatten()[rows].tolist()
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
            length = int(kept[row])
            label = f"{length} token{'s' * (length > 1)} · {quality[row].item():.1f} dB"
            axis.set_xlabel(label if column else f"complexity {complexity[row]:.2f}", fontsize=7, labelpad=2)
    figure.tight_layout(pad=0.4)
    return figure


def comparison_frames(engine: Engine, scene: Scene, n_tokens: Tensor, rows: list[int], size: int = 160) -> Frames:
    """Original, reconstruction and absolute error side by side, with a bar of the tokens kept.

    Args:
        engine: decodes.
        scene: P scenes.
        n_tokens: ``int64 [P, L]``.
        rows: positions among the P·L clips, shown in two columns.
        size: minimum height of a clip in pixels.

    Returns:
        ``uint8 [T, H', W', 3]`` with even sides; see `render_decision`.
    """
    originals = [to_frames(clip) for clip in scene.clips.flatten(0, 1)[rows]]
    kept = n_tokens.flatten()[rows]
    decoded = [to_frames(clip) for clip in engine.world.decode(scene.codes.flatten(0, 1)[rows], kept)]
    scale = -(-size // originals[0].shape[1])
    pictures = [
        tile_frames(
            [
                render_decision(original, again, length, scene.tokens, {}, frame=frame, scale=scale)
                for original, again, length in zip(originals, decoded, kept.tolist(), strict=True)
            ],
            columns=min(2, len(rows)),
        )
        for frame in range(len(originals[0]))
    ]
    return np.stack(pictures)


def write_video(path: Path, frames: Frames, fps: int = 8) -> Path:
    """Writes an H.264 MP4 that plays the frames three times (clips are short)."""
    looped = np.concatenate([frames] * 3)
    imageio.imwrite(path, looped, plugin="FFMPEG", fps=fps, macro_block_size=1, ffmpeg_log_level="error")
    return path


def gif_bytes(frames: Frames, fps: int = 8) -> bytes:
    """The frames as an animated GIF."""
    data: bytes = imageio.imwrite("<bytes>", frames, extension=".gif", plugin="pillow", duration=1000 // fps, loop=0)
    return data
