"""Results of a sweep: a tidy CSV, a Markdown table with intervals, and two plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vaportok_rl.evaluation.intervals import interquartile_mean, interquartile_mean_interval
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.experiments.sweeps.columns import COLUMNS
from vaportok_rl.experiments.sweeps.running import Row
from vaportok_rl.runtime.markdown import markdown_table, write_page
from vaportok_rl.runtime.whole_writes import whole_write

CSV_FILE, PAGE_FILE, SAVED_FILE, PARETO_FILE = "results.csv", "results.md", "saved.png", "pareto.png"
_SHOWN = ("tokens", "mse", "accuracy", "rfvd", "gfvd", "saved", "reward")


def write_report(out: Path, rows: Sequence[Row], title: str, *notes: str) -> list[Path]:
    """Writes all files of a finished sweep; equal rows make equal files.

    Args:
        out: the sweep's folder.
        rows: one per variant and seed; see `Worker.work`.
        title: of the page.
        *notes: more paragraphs.

    Returns:
        The files.
    """
    frame = pd.DataFrame(list(rows))
    with whole_write(out / CSV_FILE) as scratch:
        frame.to_csv(scratch, index=False)
    pictures = [
        save_figure(saved_figure(frame), out / SAVED_FILE),
        save_figure(pareto_figure(frame), out / PARETO_FILE),
    ]
    page = write_page(
        out / PAGE_FILE,
        title,
        table(frame),
        f"Held-out clips, {len(frame)} runs. Interquartile mean over seeds (the mean for three or fewer) with 95 % "
        "bootstrap intervals over seeds. *saved*: less error than a fixed length of as many tokens. *reward*: each "
        "variant's own.",
        f"![Error saved at equal tokens]({SAVED_FILE})",
        f"![Error against tokens]({PARETO_FILE})",
        *notes,
    )
    return [out / CSV_FILE, page, *pictures]


def table(frame: pd.DataFrame) -> str:
    """One row per variant, in the order of ``rows``."""
    columns = {name: COLUMNS[name] for name in _SHOWN if name in frame}
    lines = []
    for variant, runs in frame.groupby("variant", sort=False):
        cells = [_cell(column.factor * runs[name].to_numpy(), column.style) for name, column in columns.items()]
        lines.append((variant, len(runs), *cells))
    return markdown_table(("variant", "seeds", *(column.heading for column in columns.values())), lines)


def _cell(values: NDArray[np.float64], style: str) -> str:
    low, high = interquartile_mean_interval(values)
    interval = "" if np.isnan(low) else f" [{low:{style}}, {high:{style}}]"
    return f"{interquartile_mean(values):{style}}{interval}"


def saved_figure(frame: pd.DataFrame) -> Figure:
    """Error saved against a fixed length with as many tokens, one row per variant: all runs, and the interval."""
    groups: list[tuple[Any, pd.DataFrame]] = list(frame.groupby("variant", sort=False))[::-1]
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(groups)))
    axis = figure.subplots()
    for place, (_, runs) in enumerate(groups):
        saved = 100 * runs["saved"].to_numpy()
        axis.plot(interquartile_mean_interval(saved), (place, place), color="tab:blue", lw=3, alpha=0.4)
        axis.plot(saved, [place] * len(saved), ".", color="tab:gray", ms=5)
        axis.plot(interquartile_mean(saved), place, "D", color="tab:blue", ms=5)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_yticks(range(len(groups)), [str(name) for name, _ in groups], fontsize=8)
    axis.set_xlabel("error saved against a fixed length of as many tokens (%)")
    axis.set_title("Variants at equal tokens, held-out clips", fontsize=10)
    figure.tight_layout()
    return figure


def pareto_figure(frame: pd.DataFrame) -> Figure:
    """Mean error against mean tokens, one point per variant, and the Pareto front."""
    means = frame.groupby("variant", sort=False)[["tokens", "mse"]].mean()
    front = means[~dominated(means.to_numpy())].sort_values("tokens")
    figure = Figure(figsize=(6, 4.2))
    axis = figure.subplots()
    axis.plot(frame["tokens"], 1000 * frame["mse"], ".", color="tab:gray", ms=4, label="runs")
    axis.plot(front["tokens"], 1000 * front["mse"], "-", color="tab:blue", lw=1, label="Pareto front")
    axis.plot(means["tokens"], 1000 * means["mse"], "D", color="tab:blue", ms=5, label="variants")
    for name, (tokens, mse) in zip(means.index, means.to_numpy(), strict=True):
        axis.annotate(str(name), (tokens, 1000 * mse), fontsize=6, xytext=(4, 3), textcoords="offset points")
    axis.set_xlabel("tokens kept")
    axis.set_ylabel("mean squared error · 10³")
    axis.set_title("Error against tokens, held-out clips", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points ``[N, 2]`` are Pareto-dominated; lower is better."""
    no_worse = (points[None] <= points[:, None]).all(-1)
    better = (points[None] < points[:, None]).any(-1)
    found: NDArray[np.bool_] = np.any(no_worse & better, axis=1)
    return found
