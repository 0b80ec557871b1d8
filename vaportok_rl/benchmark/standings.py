"""Every method's results of every task, read and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaportok_rl.agents.scoreboard import with_interval
from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.running import RESULTS_FILE, Result, arena_of, read_results, score_of_seed
from vaportok_rl.benchmark.scoring import area_under
from vaportok_rl.benchmark.submissions import by_seed
from vaportok_rl.benchmark.tables import pins
from vaportok_rl.benchmark.tasks import TASKS, Task
from vaportok_rl.evaluation.intervals import interquartile_mean, interquartile_mean_interval

ORACLE = "oracle"
"""The method that is the ceiling, not a competitor."""


@dataclass(frozen=True)
class Standing:
    """A method's runs of one task.

    Attributes:
        method: its name.
        scores: on the test scenes, ``[seeds]``.
        share: of the known front's hypervolume, ``[seeds]``; NaN without objectives.
        saved: error saved at equal tokens, ``[seeds]``; the mean over a sweep.
        tokens: mean tokens per clip, ``[seeds]``.
        area: area under the learning curve on the validation scenes, ``[seeds]``; NaN without one.
        seconds: of training, ``[seeds]``.
        curves: of each run.
        decisions: of training, mean over the seeds.
        seeds: of the runs, in the order of all arrays.
        lengths: of the first result of each seed, ``int64 [seeds, P, L]``.
    """

    method: str
    scores: NDArray[np.float64]
    share: NDArray[np.float64]
    saved: NDArray[np.float64]
    tokens: NDArray[np.float64]
    area: NDArray[np.float64]
    seconds: NDArray[np.float64]
    curves: tuple[list[tuple[int, float]], ...]
    lengths: torch.Tensor
    decisions: float
    seeds: tuple[int, ...]

    @property
    def middle(self) -> float:
        """Interquartile mean of the scores."""
        return interquartile_mean(self.scores)

    @property
    def score(self) -> str:
        """The same with its 95 % interval over the seeds, written out."""
        return with_interval("{:.3f}".format, self.middle, interquartile_mean_interval(self.scores))

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
    scores = np.array([score_of_seed(task, some) for some in runs.values()])
    return Standing(
        method,
        scores=scores,
        share=np.full_like(scores, np.nan) if scalar else arena.sweep_volumes.at(scores) / arena.front_volume,
        saved=np.array([np.mean([arena.saved("test", some) for some in lengths]) for lengths in kept.values()]),
        tokens=np.array([np.mean([some.double().mean() for some in lengths]) for lengths in kept.values()]),
        area=np.array([area_under(*zip(*some[0].points, strict=True)) if scalar else np.nan for some in runs.values()]),
        seconds=np.array([sum(result.seconds for result in some) for some in runs.values()]),
        curves=tuple(some[0].points for some in runs.values()) if scalar else (),
        lengths=torch.stack([lengths[0] for lengths in kept.values()]),
        decisions=float(np.mean([sum(result.decisions for result in some) for some in runs.values()])),
        seeds=tuple(runs),
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
