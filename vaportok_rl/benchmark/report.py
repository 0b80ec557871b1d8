"""The leaderboard: a page and plots of all methods' results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.running import RESULTS_FILE, Result, arena_of, read_results, score_of_seed
from vaportok_rl.benchmark.scoring import area_under, performance_profile, probability_of_improvement
from vaportok_rl.benchmark.submissions import by_seed
from vaportok_rl.benchmark.tables import pins
from vaportok_rl.benchmark.tasks import TASKS, Task
from vaportok_rl.evaluation.intervals import bootstrap_interval, interquartile_mean, interquartile_mean_interval
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.runtime.markdown import markdown_table, write_page

PAGE_FILE = "leaderboard.md"
ORACLE = "oracle"
_THRESHOLDS = np.linspace(-1, 1, 201)


@dataclass(frozen=True)
class Standing:
    """A method's runs of one task.

    Attributes:
        method: its name.
        scores: on the test scenes, ``[seeds]``.
        saved: error saved at equal tokens, ``[seeds]``; the mean over a sweep.
        tokens: mean tokens per clip, ``[seeds]``.
        area: area under the learning curve on the validation scenes, ``[seeds]``; NaN without one.
        seconds: of training, ``[seeds]``.
        curves: of each run.
        lengths: of the first result of each seed, ``int64 [seeds, P, L]``.
    """

    method: str
    scores: NDArray[np.float64]
    saved: NDArray[np.float64]
    tokens: NDArray[np.float64]
    area: NDArray[np.float64]
    seconds: NDArray[np.float64]
    curves: tuple[list[tuple[int, float]], ...]
    lengths: torch.Tensor

    @property
    def middle(self) -> float:
        """Interquartile mean of the scores."""
        return interquartile_mean(self.scores)

    @property
    def sees(self) -> str:
        """What its decisions depend on."""
        return METHODS[self.method].sees if self.method in METHODS else "window"


def standing(task: Task, method: str, runs: Mapping[int, list[Result]]) -> Standing:
    """A method's runs of a task, by seed."""
    arena = arena_of(task)
    scenes = arena.scenes("test")
    kept = {seed: [result.n_tokens.view(scenes.shape) for result in some] for seed, some in runs.items()}
    scalar = not task.objectives
    return Standing(
        method,
        scores=np.array([score_of_seed(task, some) for some in runs.values()]),
        saved=np.array([np.mean([arena.saved("test", some) for some in lengths]) for lengths in kept.values()]),
        tokens=np.array([np.mean([some.double().mean() for some in lengths]) for lengths in kept.values()]),
        area=np.array([area_under(*zip(*some[0].points, strict=True)) if scalar else np.nan for some in runs.values()]),
        seconds=np.array([sum(result.seconds for result in some) for some in runs.values()]),
        curves=tuple(some[0].points for some in runs.values()) if scalar else (),
        lengths=torch.stack([lengths[0] for lengths in kept.values()]),
    )


def standings(folder: Path) -> dict[str, list[Standing]]:
    """Every method's current results by task, the best first; results of other versions are left out."""
    found: dict[str, list[Standing]] = {}
    results = {path.parent.name: read_results(path.parent) for path in sorted(folder.glob(f"*/{RESULTS_FILE}"))}
    for task in TASKS.values():
        rows = []
        for method, some in results.items():
            current = [result for result in some if result.belongs_to(task, pins()[task.table])]
            runs = {seed: of_seed for (_, seed), of_seed in by_seed(current).items()}
            if runs:
                rows.append(standing(task, method, runs))
        if rows:
            found[task.name] = sorted(rows, key=lambda row: -row.middle)
    return found


def task_table(task: Task, rows: Sequence[Standing]) -> str:
    """One row per method."""
    lines = []
    for row in rows:
        low, high = interquartile_mean_interval(row.scores)
        interval = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        above = [other for other in rows if other.method not in (ORACLE, row.method) and other.middle <= row.middle]
        better = probability_of_improvement(row.scores, above[0].scores) if above and row.method != ORACLE else np.nan
        area = "" if np.isnan(row.area).all() else f"{row.area.mean():.3f}"
        lines.append(
            (
                row.method,
                row.sees,
                f"{row.middle:.3f}{interval}",
                "" if np.isnan(better) else f"{better:.2f}",
                f"{100 * row.saved.mean():+.1f} %",
                f"{row.tokens.mean():.1f}",
                area,
                f"{row.seconds.mean():.1f}",
            )
        )
    headings = ("method", "sees", "score", "P(better)", "saved", "tokens", "area", "seconds")
    if task.objectives:
        headings = (*headings[:2], "share of the front's volume", *headings[3:])
    return markdown_table(headings, lines, names=2)


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


def curves_figure(found: Mapping[str, Sequence[Standing]]) -> Figure:
    """Mean validation score by decisions, one panel per task with curves."""
    tasks = [name for name, rows in found.items() if any(len(row.curves[0]) > 1 for row in rows if row.curves)]
    figure = Figure(figsize=(4.6 * max(1, len(tasks)), 3.8))
    panels = figure.subplots(1, max(1, len(tasks)), squeeze=False)[0]
    colours = {name: f"C{place % 10}" for place, name in enumerate(METHODS)}
    for axis, name in zip(panels, tasks, strict=False):
        for row in found[name]:
            if row.curves and len(row.curves[0]) > 1:
                decisions = [done for done, _ in row.curves[0]]
                heights = [[score for _, score in curve] for curve in row.curves if len(curve) == len(decisions)]
                axis.plot(decisions, np.mean(heights, 0), color=colours.get(row.method), lw=1.5, label=row.method)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("decisions")
        axis.set_ylim(-1, 1)
        axis.grid(alpha=0.2)
        axis.legend(fontsize=7, frameon=False, loc="lower right")
    panels[0].set_ylabel("score on validation scenes")
    figure.tight_layout()
    return figure


def profile_figure(found: Mapping[str, Sequence[Standing]]) -> Figure:
    """Performance profiles: the share of all runs of all tasks whose score exceeds each height."""
    scores: dict[str, list[float]] = defaultdict(list)
    for rows in found.values():
        for row in rows:
            scores[row.method] += row.scores.tolist()
    figure = Figure(figsize=(7.0, 4.2))
    axis = figure.subplots()
    for place, (method, some) in enumerate(sorted(scores.items(), key=lambda pair: -np.mean(pair[1]))):
        style = ("-", "--", ":")[place // 10]
        axis.plot(_THRESHOLDS, performance_profile(some, _THRESHOLDS), style, color=f"C{place % 10}", label=method)
    axis.set_xlabel("score τ (0: best fixed length, 1: oracle)")
    axis.set_ylabel("share of runs above τ")
    axis.set_title("Performance profiles over all tasks and seeds", fontsize=10)
    axis.grid(alpha=0.2)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def write_report(folder: Path, out: Path) -> list[Path]:
    """Writes the leaderboard's page and plots.

    Args:
        folder: of the methods' folders.
        out: for ``leaderboard.md`` and ``images/``.

    Raises:
        FileNotFoundError: there are no results.
    """
    found = standings(folder)
    if not found:
        raise FileNotFoundError(
            f"Expected results of the current tasks in {folder}, found none; run `vaportok-rl benchmark run all "
            "--seeds 0-9`."
        )
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
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
        "[benchmark.md](benchmark.md).",
        "*Score*: interquartile mean over seeds on the test scenes, with a 95 % bootstrap interval over seeds; 0 is "
        "the best fixed length, 1 the oracle. *P(better)*: probability that a run scores higher than one of the method "
        "below. *Saved*: less error than a fixed length of as many tokens. *Area*: under the learning curve on the "
        "validation scenes. *Seconds*: of training, on the submitter's machine. *Sees*: what a decision depends on.",
        *parts,
        "## All tasks",
        "![Learning curves](images/leaderboard.png)",
        "![Performance profiles](images/profiles.png)",
    )
    return [page, *pictures]
