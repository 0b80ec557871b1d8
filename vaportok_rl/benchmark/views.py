"""Two pages from the leaderboard's results: GRPO against other optimisers, and how much of the gap can be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vaportok_rl.agents.scoreboard import with_interval
from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.pictures import curves_figure
from vaportok_rl.benchmark.standings import ORACLE, Standing
from vaportok_rl.benchmark.tasks import TASKS, Task
from vaportok_rl.evaluation.intervals import mean_interval
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.runtime.markdown import markdown_table, write_page

OURS, TASK = "grpo", "procedural-v1"
INFORMED = ("enumerated", "router", "value", "planner")
"""Methods that are told what every length of the training clips earns, with a policy that can use it."""
_SOURCE = "Written by `vaportok-rl benchmark report` from the folders in `leaderboard/`"


def is_optimiser(method: str) -> bool:
    """Whether a method improves a policy step by step from rewards; submissions count as such."""
    return method not in ("random", "router") and (method not in METHODS or METHODS[method].learns)


def beyond(ours: Standing, theirs: Standing, metric: Literal["scores", "saved"]) -> NDArray[np.float64]:
    """Our value less theirs, for each seed that both have."""
    mine, other = (dict(zip(row.seeds, getattr(row, metric), strict=True)) for row in (ours, theirs))
    return np.array([value - other[seed] for seed, value in mine.items() if seed in other])


def optimisers_table(rows: Sequence[Standing]) -> str:
    """One row per optimiser; GRPO's difference to it where both have a seed."""

    def mean(values: NDArray[np.float64], style: str, factor: float = 1.0) -> str:
        found = factor * values
        return with_interval(f"{{:{style}}}".format, found.mean(), mean_interval(found)) if len(found) else "–"

    ours = next((row for row in rows if row.method == OURS), None)
    lines = []
    for row in rows:
        ahead = [np.empty(0)] * 2
        if ours is not None and row is not ours:
            ahead = [beyond(ours, row, "scores"), beyond(ours, row, "saved")]
        lines.append(
            (
                row.method,
                len(row.seeds),
                row.score,
                mean(row.saved, "+.1f", 100),
                mean(ahead[0], "+.3f"),
                mean(ahead[1], "+.1f", 100),
                f"{row.decisions:,.0f}",
                f"{row.seconds.mean():.1f}",
                f"{row.decisions / row.seconds.mean():,.0f}" if row.seconds.any() else "–",
            )
        )
    paired = (f"{OURS}'s score beyond", f"{OURS}'s saved beyond, %")
    headings = ("method", "seeds", "score", "saved, %", *paired, "decisions", "seconds", "decisions/s")
    return markdown_table(headings, lines)


def learnable_part(rows: Sequence[Standing]) -> Standing | None:
    """The informed method with the highest score."""
    return max((row for row in rows if row.method in INFORMED), key=lambda row: row.middle, default=None)


def learnable_table(rows: Sequence[Standing]) -> str:
    """One row per method, but for the oracle: its score as a share of the learnable part."""
    best = learnable_part(rows)
    part = 0.0 if best is None else best.middle
    lines = [
        (row.method, row.sees, row.score, f"{100 * row.middle / part:.0f} %" if part > 0 else "–")
        for row in rows
        if row.method != ORACLE
    ]
    return markdown_table(("method", "sees", "score", "share of the learnable part"), lines, names=2)


def _measured(task: Task, rows: Sequence[Standing]) -> str:
    seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
    return f"Task `{task.name}`, {rows[0].lengths[0].numel()} test clips, seeds {seeds}."


def _missing(task: Task) -> str:
    return f"There are no results of `{task.name}` yet."


def write_views(found: Mapping[str, Sequence[Standing]], out: Path) -> list[Path]:
    """Writes both pages and their picture.

    Args:
        found: every method's results by task, the best first; see `standings`.
        out: for ``optimisers.md``, ``learnable.md`` and ``images/``.
    """
    written = []
    compared = [row for row in found.get(TASK, ()) if is_optimiser(row.method)]
    results = [_missing(TASKS[TASK])]
    if compared:
        picture = out / "images" / "optimisers.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        written.append(save_figure(curves_figure({TASK: compared}), picture))
        shown = f"![Learning curves](images/{picture.name})"
        legend = (
            "*Score*: interquartile mean over the seeds; 0 is the best fixed length, 1 the oracle. *Saved*: less error "
            f"than a fixed length of as many tokens, mean over the seeds. *{OURS}'s … beyond*: mean difference of runs "
            "with the same seed. Intervals: 95 %, bootstrap over seeds. *Seconds*: of training, on the submitter's "
            "machine."
        )
        results = [_measured(TASKS[TASK], compared), legend, optimisers_table(compared), shown]
    written.append(
        write_page(
            out / "optimisers.md",
            "Optimisers on the same clips",
            f"{_SOURCE}: a view of the [leaderboard](leaderboard.md), which sets GRPO beside the other methods that "
            f"learn from rewards. All see one clip at a time of `{TASK}`, with the same observations, and train for "
            f"at most {TASKS[TASK].decisions:,} decisions ([protocol](benchmark.md)).",
            "None begins with the tokenizer's taildrop module. Policy gradients and DQN train one hidden layer of 64 "
            "units; `grpo` and `enumerated` also smooth the logits over neighbouring lengths. `linucb` is linear, and "
            "`cem` searches eight weights. `enumerated` has the exact gradient over all lengths; each of its decisions "
            "counts once.",
            *results,
        )
    )
    parts = []
    for task in TASKS.values():
        if not task.objectives:
            rows = found.get(task.name, ())
            best = learnable_part(rows)
            parts += [f"## {task.name}", _measured(task, rows) if rows else _missing(task)]
            parts += [learnable_table(rows)] if rows else []
            if best is not None:
                parts.append(f"Learnable part of the gap: {best.score}, by `{best.method}`.")
            elif rows:
                parts.append("No informed method has results yet.")
    written.append(
        write_page(
            out / "learnable.md",
            "How much of the gap can be learnt",
            f"{_SOURCE}: a view of the [leaderboard](leaderboard.md). 0 is the best fixed length, 1 the oracle, which "
            "knows the outcomes of its paths in advance. A policy sees the clips and not their outcomes, so it cannot "
            "be expected to reach 1.",
            "The *learnable part* is the best score of the informed methods: "
            f"{', '.join(f'`{name}`' for name in INFORMED)}, as far as they are made for the task. They are told what "
            "every length of the training clips earns; test clips are new to all. A share above 100 % says that more "
            "can be learnt than the informed methods did. *Score*: interquartile mean over the seeds on the test "
            "clips, with a 95 % bootstrap interval over seeds.",
            *parts,
        )
    )
    return written
