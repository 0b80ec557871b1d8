"""The leaderboard: a page and plots of all methods' results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaportok_rl.benchmark.pictures import curves_figure, profile_figure
from vaportok_rl.benchmark.running import arena_of
from vaportok_rl.benchmark.scoring import probability_of_improvement
from vaportok_rl.benchmark.standings import ORACLE, Standing, standings
from vaportok_rl.benchmark.tasks import TASKS, Task
from vaportok_rl.benchmark.views import write_views
from vaportok_rl.evaluation.intervals import bootstrap_interval
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.runtime.markdown import markdown_table, write_page
from vaportok_rl.runtime.whole_writes import writable_folder

PAGE_FILE = "leaderboard.md"


def task_table(task: Task, rows: Sequence[Standing]) -> str:
    """One row per method."""
    columns: list[tuple[str, Callable[[Standing], str]]] = [
        ("method", lambda row: row.method),
        ("sees", lambda row: row.sees),
        ("score", lambda row: row.score),
        ("P(better)", lambda row: _better(row, rows)),
        ("saved", lambda row: f"{100 * row.saved.mean():+.1f} %"),
        ("tokens", lambda row: f"{row.tokens.mean():.1f}"),
        ("area", lambda row: f"{row.area.mean():.3f}"),
        ("share of the front", lambda row: f"{100 * row.share.mean():.1f} %"),
        ("seconds", lambda row: f"{row.seconds.mean():.1f}"),
    ]
    left_out = "area" if task.objectives else "share of the front"
    columns = [column for column in columns if column[0] != left_out]
    lines = [tuple(cell(row) for _, cell in columns) for row in rows]
    return markdown_table(tuple(heading for heading, _ in columns), lines, names=2)


def _better(row: Standing, rows: Sequence[Standing]) -> str:
    """Probability that a run scores higher than one of the method below; empty for the oracle and the last."""
    below = [other for other in rows if other.method not in (ORACLE, row.method) and other.middle <= row.middle]
    if not below or row.method == ORACLE:
        return ""
    return f"{probability_of_improvement(row.scores, below[0].scores):.2f}"


def look_ahead(task: Task, rows: Sequence[Standing]) -> str:
    """The best method that looks ahead against the best that decides clip by clip, with an interval over scenes."""
    ahead = [row for row in rows if row.sees == "window"]
    alone = [row for row in rows if row.sees in ("nothing", "clip")]
    if not (task.window and ahead and alone):
        return ""
    arena = arena_of(task)
    env, scenes, bounds = arena.env("test"), arena.scenes("test"), arena.bounds("test")

    def by_scene(row: Standing) -> NDArray[np.float64]:
        earned = [
            env.play(scenes, lambda env, state, some=some: some[:, state.step] - 1)[1].sum(1) for some in row.lengths
        ]
        return torch.stack(earned).double().mean(0).numpy() / (bounds.oracle - bounds.fixed)

    difference = by_scene(ahead[0]) - by_scene(alone[0])
    low, high = bootstrap_interval(np.mean, difference)
    return (
        f"Looking ahead: {ahead[0].method} scores {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}] against "
        f"{alone[0].method}, the best that decides clip by clip (95 % bootstrap interval over the "
        f"{len(difference)} test scenes)."
    )


def write_report(folder: Path, out: Path) -> list[Path]:
    """Writes the leaderboard's page and plots, and the views of it.

    Args:
        folder: of the methods' folders.
        out: for ``leaderboard.md``, ``optimisers.md``, ``learnable.md`` and ``images/``.

    Raises:
        FileNotFoundError: there are no results.
        UnwritableError: ``out`` cannot be written to.
    """
    images = writable_folder(out / "images")
    found = standings(folder)
    if not found:
        raise FileNotFoundError(
            f"Expected results of the current tasks in {folder}, found none; run `vaportok-rl benchmark run all "
            "--seeds 0-9`."
        )
    pictures = [
        save_figure(curves_figure(found), images / "leaderboard.png"),
        save_figure(profile_figure(found), images / "profiles.png"),
    ]
    parts = []
    for name, rows in found.items():
        seeds = max(len(row.scores) for row in rows)
        parts += [f"## {name}", f"{TASKS[name].asks[:1].upper()}{TASKS[name].asks[1:]}. {seeds} seeds at most."]
        parts += [task_table(TASKS[name], rows), *filter(None, [look_ahead(TASKS[name], rows)])]
    page = write_page(
        out / PAGE_FILE,
        "Leaderboard",
        "Written by `vaportok-rl benchmark report` from the folders in `leaderboard/`. The protocol is in "
        "[benchmark.md](benchmark.md). Views of the same results: [GRPO against the other optimisers](optimisers.md), "
        "[how much of the gap can be learnt](learnable.md).",
        "*Score*: interquartile mean over seeds on the test scenes, with a 95 % bootstrap interval over seeds; 0 is "
        "the best fixed length, 1 the oracle. *P(better)*: probability that a run scores higher than one of the method "
        "below. *Saved*: less error than a fixed length of as many tokens. *Area*: under the learning curve on the "
        "validation scenes. *Share of the front*: hypervolume of the sweep over that of the known front. *Seconds*: "
        "of training, on the submitter's machine. *Sees*: what a decision depends on. The score of `pareto-v1` is that "
        "of the sweep's hypervolume.",
        *parts,
        "## All tasks",
        "![Learning curves](images/leaderboard.png)",
        "![Performance profiles](images/profiles.png)",
    )
    return [page, *pictures, *write_views(found, out)]
