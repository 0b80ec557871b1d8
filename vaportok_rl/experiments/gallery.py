"""The pictures of the README and the documentation, made from a tokenizer and held-out procedural clips.

Run: python -m vaportok_rl.experiments.gallery docs/images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import render_decision, to_frames
from vaportok_rl.evaluation.reconstruction import mean_squared_error, psnr
from vaportok_rl.experiments.reports.pictures import contact_sheet, legible_rows
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.tokenizer import VaporTok

FRAME, SHEET, WORLDS = "rendered_frame.png", "lengths.png", "worlds.png"


def proportional_lengths(score: Tensor, tokens: int) -> Tensor:
    """Lengths that rise evenly with complexity: scores in [0, 1] to ``int64`` in 1 … K, of the same shape."""
    return 1 + (score * (tokens - 1)).round().long()


def rendered_frame(process: TaildropProcess, seed: int) -> np.ndarray:
    """The picture of a path's last decision, the one that the path terms are paid at: ``uint8 [H', W', 3]``.

    Args:
        process: draws the path and scores it; its lengths are `proportional_lengths`.
        seed: of the path.
    """
    engine = process.engine
    scene = process.sample_scene([np.random.default_rng(seed)])
    lengths = proportional_lengths(engine.complexity_scale.score(scene.complexity), scene.tokens)
    raw = process.reward(engine.score(scene, lengths[None])).raw
    terms = {name: value.flatten()[-1].item() for name, value in raw.items() if process.reward.weights_now()[name] != 0}
    original = to_frames(scene.clips[0, -1])
    again = to_frames(engine.reconstruct(scene, lengths)[0, -1])
    return render_decision(original, again, int(lengths[0, -1]), scene.tokens, terms, frame=len(original) // 2)


@torch.no_grad()
def worlds_figure(worlds: Mapping[str, VaporTok], clips: Tensor, lengths: Sequence[int]) -> Figure:
    """Middle frames of clips under several tokenizers: one row per clip, one column per length and tokenizer.

    Args:
        worlds: tokenizers by name, all for clips of this size.
        clips: ``uint8 [B, C, T, H, W]``.
        lengths: tokens kept.
    """
    middle = clips.shape[2] // 2
    columns = [("original", clips.float() / 255)]
    codes = {name: world.encode(clips).codes for name, world in worlds.items()}
    for n in lengths:
        columns += [(f"{n} tokens, {name}", world.decode(codes[name], n)) for name, world in worlds.items()]
    figure = Figure(figsize=(1.6 * len(columns), 1.75 * len(clips)))
    axes = figure.subplots(len(clips), len(columns), squeeze=False)
    for column, (title, shown) in enumerate(columns):
        quality = psnr(mean_squared_error(shown, clips)).tolist()
        for row, axis in enumerate(axes[:, column]):
            axis.imshow(to_frames(shown[row])[middle], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{quality[row]:.1f} dB" if column else "", fontsize=8, labelpad=2)
        axes[0, column].set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4)
    return figure


def make_gallery(
    folder: Path, tokenizer: str = "nano", path_length: int = 64, seed: int = 0, compare_with: str | None = None
) -> list[Path]:
    """Draws a decision and a contact sheet of clips decoded from 1, 4, 16 and K tokens.

    The same weights and seed give the same bytes on one machine.

    Args:
        folder: where to write the PNG files.
        tokenizer: a shipped name, a checkpoint folder or a hub id.
        path_length: held-out clips to choose the contact sheet's six rows from, which run from simple to complex.
        seed: of the clips.
        compare_with: another world, with which eight clips are shown side by side at 4, 16 and K tokens.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame, sheet = folder / FRAME, folder / SHEET
    process = TaildropProcess(tokenizer=tokenizer, split="test", path_length=path_length)
    Image.fromarray(rendered_frame(process, seed)).save(frame, optimize=True)
    scene = process.sample_scene([np.random.default_rng(seed)])
    score = process.engine.complexity_scale.score(scene.complexity)
    with torch.no_grad():
        save_figure(contact_sheet(process.engine, scene, score, {}, count=6), sheet)
    if compare_with is None:
        return [frame, sheet]
    worlds = {"before": VaporTok.from_pretrained(compare_with), "now": VaporTok.from_pretrained(tokenizer)}
    clips = scene.clips.flatten(0, 1)
    shown = clips[legible_rows(score.flatten(), clips, 8)]
    lengths = sorted({min(n, scene.tokens) for n in (4, 16, 64)})
    return [frame, sheet, save_figure(worlds_figure(worlds, shown, lengths), folder / WORLDS)]


def main(folder: Path, /, tokenizer: str = "nano", seed: int = 0, compare_with: str | None = None) -> None:
    """Draws the pictures of the README and the documentation.

    Args:
        folder: where to write the PNG files.
        tokenizer: a shipped name, a checkpoint folder or a hub id.
        seed: of the held-out clips that are shown.
        compare_with: other weights, to show eight of the clips under both.
    """
    for path in make_gallery(folder, tokenizer, seed=seed, compare_with=compare_with):
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
