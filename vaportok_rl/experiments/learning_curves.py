"""Curves of policies trained with and without full information: medians, a table, a picture and the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.experiments.run_folder import write_json
from vaportok_rl.runtime.markdown import markdown_table
from vaportok_rl.runtime.whole_writes import whole_write

Method = Literal["grpo", "enumerated", "router"]
Start = Literal["pretrained", "fresh"]
FULL_INFORMATION: tuple[Method, ...] = ("enumerated", "router")


@dataclass(frozen=True)
class LearningCurve:
    """One run.

    Attributes:
        method: how the network was trained.
        start: from what.
        seed: of the run.
        share: of the training done at each point, 0 … 1.
        training: gap closed on training scenes at each point.
        held_out: gap closed on held-out scenes at each point.
        figures: of the policy at the end, on held-out scenes; see `Comparison.results`.
        seconds: the whole run, measurements included.
        folds: gap closed on the held-out scenes of each fold, of which the rest are means; empty without folds.
    """

    method: Method
    start: Start
    seed: int
    share: tuple[float, ...]
    training: tuple[float, ...]
    held_out: tuple[float, ...]
    figures: dict[str, float]
    seconds: float
    folds: tuple[float, ...] = ()

    @property
    def late_rise(self) -> float:
        """Increase of the training gap in the last quarter of training: near 0 after convergence."""
        return self.training[-1] - float(np.interp(0.75, self.share, self.training))


def save_curve(folder: Path, curve: LearningCurve) -> Path:
    """Writes one run to ``folder``, whole or not at all; returns its path. Unlike `write_json` it keeps NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{curve.start}-{curve.method}-{curve.seed}.json"
    with whole_write(path) as scratch:
        scratch.write_text(json.dumps(asdict(curve)))
    return path


def load_curves(folder: Path) -> list[LearningCurve]:
    """The runs that `save_curve` wrote to ``folder``, in no particular order."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    series = ("share", "training", "held_out", "folds")
    return [LearningCurve(**(one | {name: tuple(one[name]) for name in series})) for one in found]


def mean_over_folds(curves: Sequence[LearningCurve]) -> LearningCurve:
    """One run from its curves on each fold: the means, every fold counting alike; a lone curve is returned as it is."""
    first = curves[0]
    if len(curves) == 1:
        return first
    return replace(
        first,
        training=tuple(np.mean([curve.training for curve in curves], axis=0).tolist()),
        held_out=tuple(np.mean([curve.held_out for curve in curves], axis=0).tolist()),
        figures={name: float(np.mean([curve.figures[name] for curve in curves])) for name in first.figures},
        seconds=float(np.mean([curve.seconds for curve in curves])),
        folds=tuple(curve.figures["gap_closed"] for curve in curves),
    )


def summary(curves: Sequence[LearningCurve]) -> dict[str, Any]:
    """Medians over seeds by start and method; the most that full information closes; GRPO's share of it by start."""
    runs: dict[Start, dict[Method, dict[str, float]]] = {}
    for start, method in dict.fromkeys((curve.start, curve.method) for curve in curves):
        some = [curve for curve in curves if (curve.start, curve.method) == (start, method)]
        runs.setdefault(start, {})[method] = {
            "held_out_gap_closed": float(np.median([curve.figures["gap_closed"] for curve in some])),
            "training_gap_closed": float(np.median([curve.training[-1] for curve in some])),
            "late_rise": float(np.median([curve.late_rise for curve in some])),
            "saved": float(np.median([curve.figures["saved"] for curve in some])),
            "tokens": float(np.median([curve.figures["tokens"] for curve in some])),
            "spearman": float(np.median([curve.figures["spearman_complexity"] for curve in some])),
            "seconds": float(np.median([curve.seconds for curve in some])),
        }
    informed = [
        found["held_out_gap_closed"]
        for methods in runs.values()
        for method, found in methods.items()
        if method in FULL_INFORMATION
    ]
    learnable = max(informed, default=float("nan"))
    shares = {
        start: methods["grpo"]["held_out_gap_closed"] / learnable if learnable > 0 else float("nan")
        for start, methods in runs.items()
        if "grpo" in methods
    }
    return {"runs": runs, "learnable_gap": learnable, "grpo_share_of_learnable": shares}


def gap_table(curves: Sequence[LearningCurve]) -> str:
    """A row a start and method: medians over seeds, the seeds' own held-out gaps, and GRPO's share in sentences.

    Where the curves are means over folds there is a column more: the median over seeds on each fold.
    """
    found = summary(curves)
    folded = any(curve.folds for curve in curves)
    names = [
        "start",
        "method",
        "held-out gap closed",
        "by seed",
        *(["by fold"] if folded else []),
        "on training clips",
        "saved",
        "Spearman(n, complexity)",
        "tokens",
    ]
    lines = []
    for start, methods in found["runs"].items():
        for method, row in methods.items():
            some = [curve for curve in curves if (curve.start, curve.method) == (start, method)]
            folds = np.median([curve.folds for curve in some], axis=0).tolist()
            cells = [
                start,
                method,
                f"{100 * row['held_out_gap_closed']:.1f} %",
                " / ".join(f"{100 * curve.figures['gap_closed']:.1f}" for curve in some),
                *([" / ".join(f"{100 * gap:.1f}" for gap in folds)] if folded else []),
                f"{100 * row['training_gap_closed']:.1f} %",
                f"{100 * row['saved']:+.1f} %",
                f"{row['spearman']:.2f}",
                f"{row['tokens']:.1f}",
            ]
            lines.append(cells)
    shares = ", ".join(f"{100 * share:.0f} % ({start})" for start, share in found["grpo_share_of_learnable"].items())
    return (
        f"{markdown_table(names, lines, names=2)}\n\nLearnable part of the gap: {100 * found['learnable_gap']:.1f} %. "
        f"GRPO reaches {shares} of it."
    )


def learning_figure(curves: Sequence[LearningCurve]) -> Figure:
    """Gap closed on training clips (dashed) and on held-out clips by training done: a row a start, a panel a method."""
    starts = list(dict.fromkeys(curve.start for curve in curves))
    methods = list(dict.fromkeys(curve.method for curve in curves))
    figure = Figure(figsize=(3.6 * len(methods), 0.6 + 2.8 * len(starts)))
    axes = figure.subplots(len(starts), len(methods), sharex=True, sharey=True, squeeze=False)
    for row, start in zip(axes, starts, strict=True):
        for axis, method in zip(row, methods, strict=True):
            runs = [curve for curve in curves if (curve.start, curve.method) == (start, method)]
            for number, curve in enumerate(runs):
                axis.plot(curve.share, curve.training, "--", color=f"C{number}", lw=1)
                axis.plot(curve.share, curve.held_out, "-", color=f"C{number}", lw=1.5, label=f"seed {curve.seed}")
            axis.set_title(f"{method}, {start}", fontsize=10)
            axis.grid(alpha=0.2)
        row[0].set_ylabel("gap closed")
    for axis in axes[-1]:
        axis.set_xlabel("share of training")
    axes[0][0].plot([], [], "--", color="gray", lw=1, label="training clips")
    axes[0][0].legend(frameon=False, fontsize=8)
    axes[0][0].set_ylim(bottom=-1.05)
    figure.tight_layout()
    return figure


def page(curves: Sequence[LearningCurve], heading: str, picture: str) -> str:
    """The Markdown page.

    Args:
        curves: of all runs.
        heading: clips, budgets and seeds.
        picture: the figure's path from the page.
    """
    return (
        "# How much of the gap can be learnt\n\n"
        "Written by `python -m vaportok_rl.experiments.learnable`. 0 % is the best fixed length, 100 % the oracle; "
        "*saved*: less error than a fixed length of as many tokens, on held-out clips. The oracle sees the whole path, "
        "the policy one clip, so 100 % cannot be reached. `grpo` learns from a few sampled lengths, `enumerated` sums "
        "over all K lengths, `router` is the same network taught the oracle's lengths. "
        "Medians over seeds on held-out clips of "
        f"{heading}\n\n{gap_table(curves)}\n\n![Gap closed during training]({picture})\n\n"
        "Dashed: on training clips. The router's rows show its best pass, selected on training scenes that are held "
        "back from it; the other rows show the end of training.\n"
    )


def write(folder: Path, curves: Sequence[LearningCurve], heading: str, name: str) -> list[Path]:
    """Writes ``results.json``, ``runs.csv`` (one row per run), the page and its picture; returns their paths.

    Args:
        folder: for all of them.
        curves: of all runs.
        heading: see `page`.
        name: of the page and the picture.
    """
    rows = [
        {
            "variant": curve.method,
            "start": curve.start,
            "seed": curve.seed,
            **curve.figures,
            "training_gap_closed": curve.training[-1],
            "late_rise": curve.late_rise,
            "seconds": curve.seconds,
        }
        for curve in curves
    ]
    table = folder / "runs.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    results = write_json(folder / "results.json", {**summary(curves), "curves": list(curves)})
    picture, text = folder / "images" / f"{name}.png", folder / f"{name}.md"
    picture.parent.mkdir(exist_ok=True)
    save_figure(learning_figure(curves), picture)
    text.write_text(page(curves, heading, f"images/{picture.name}"))
    return [results, table, picture, text]
