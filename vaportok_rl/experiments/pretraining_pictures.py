"""The pictures of a pretraining run: its curves, read back from TensorBoard, and reconstructions at growing lengths.

``vaportok-rl pretrain`` draws them at its end, ``python -m vaportok_rl.experiments.pretraining_pictures RUN`` again.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.envs import ScoringEngine
from vaportok_rl.experiments.reports.pictures import contact_sheet
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.tokenizer import VaporTok

CURVES_FILE, SHEET_FILE = "curves.png", "reconstructions.png"
PANELS = ("train/l1", "train/representation", "train/probability", "train/codes_used", "train/tokens", "held_out/psnr")

Curve = tuple[list[int], list[float]]


def read_scalars(folder: Path) -> dict[str, Curve]:
    """All scalars logged to a run folder: steps and values by tag; a resumed run's parts are joined by step."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves: dict[str, Curve] = {}
    for tag in events.Tags()["scalars"]:
        # After a kill the steps since the last checkpoint are done, and logged, twice.
        points = {event.step: event.value for event in events.Scalars(tag)}
        steps = sorted(points)
        curves[tag] = (steps, [points[step] for step in steps])
    return curves


def _smooth(values: list[float], window: int) -> np.ndarray:
    """A running mean over the last ``window`` values, over fewer at the beginning."""
    sums = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    smoothed: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


def curves_figure(curves: dict[str, Curve]) -> Figure:
    """Losses, codes in use and lengths against steps, and held-out PSNR, one line per length."""
    figure = Figure(figsize=(10, 5.4))
    axes = figure.subplots(2, 3)
    for axis, name in zip(axes.flat, PANELS, strict=True):
        tags = [tag for tag in curves if tag == name or re.fullmatch(rf"{name}/\d+", tag)]
        for tag in sorted(tags, key=lambda tag: (len(tag), tag)):
            steps, values = curves[tag]
            if tag == name:
                axis.plot(steps, values, color="tab:blue", lw=0.6, alpha=0.35)
                axis.plot(steps, _smooth(values, 20), color="tab:blue", lw=1.4)
            else:
                axis.plot(steps, values, "o-", ms=3, lw=1, label=f"n = {tag.rsplit('/', 1)[1]}")
                axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        axis.set_title(name.split("/")[1].replace("_", " ") + (" (held-out, dB)" if "held" in name else ""), fontsize=9)
        axis.set_xlabel("steps", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    return figure


def reconstruction_figure(world: VaporTok, clips: Tensor, count: int = 6) -> Figure:
    """Middle frames of some clips and of their reconstructions from 1, 4, 16 and K tokens, simple to complex.

    Args:
        world: in evaluation mode.
        clips: ``uint8 [B, C, T, H, W]`` to choose from.
        count: rows.
    """
    engine = ScoringEngine(world)
    with torch.no_grad():
        scene = engine.encode(clips[None].to(world.device))
        return contact_sheet(engine, scene, world.complexity_scale.score(scene.complexity), {}, count=count)


def draw_run(folder: Path, world: VaporTok, held_out: ClipSource, out: Path | None = None) -> list[Path]:
    """Writes ``curves.png`` and ``reconstructions.png`` into a run's folder, or another; returns their paths."""
    out = out or folder
    clips = held_out.batch(range(min(64, len(held_out)))).clips
    return [
        save_figure(curves_figure(read_scalars(folder)), out / CURVES_FILE),
        save_figure(reconstruction_figure(world, clips), out / SHEET_FILE),
    ]


def main(run: Path, /, clips: str = "procedural", out: Path | None = None) -> None:
    """Draws the pictures of a pretraining run again.

    Args:
        run: folder that `vaportok-rl pretrain` wrote.
        clips: whose held-out part to reconstruct.
        out: where to write them; the run's folder if not given.
    """
    world = VaporTok.from_pretrained(run / "model")
    held_out = open_clips(clips, split="test", frames=world.config.frames, size=world.config.size)
    for path in draw_run(run, world, held_out, out):
        print(path)


if __name__ == "__main__":
    tyro.cli(main)
