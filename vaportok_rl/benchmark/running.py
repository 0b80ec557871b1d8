"""Runs methods on tasks and keeps their results: one row of a CSV per run."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from vaportok_rl.benchmark.arena import Arena
from vaportok_rl.benchmark.methods.method import Method, Run
from vaportok_rl.benchmark.tables import fingerprint
from vaportok_rl.benchmark.tasks import Task
from vaportok_rl.evaluation.equal_tokens import share_between
from vaportok_rl.runtime.held_folders import LOCK_FILE
from vaportok_rl.runtime.whole_writes import whole_write

RESULTS_FILE = "results.csv"
_NUMBER = r"[+-]?(\d+(\.\d*)?(e[+-]?\d+)?|nan|inf)"
_WHOLE = "whole numbers"
# What a column with numbers looks like.
_FORMS = {
    "seed": r"\d{1,18}",
    "weights": rf"({_NUMBER}( {_NUMBER})*)?",
    "decisions": r"\d{1,18}",
    "seconds": r"\d+(\.\d*)?(e[+-]?\d+)?",
    "objective": rf"({_NUMBER})?",
    "objective_test": rf"({_NUMBER})?",
    "curve": rf"\d{{1,18}}:{_NUMBER}( \d{{1,18}}:{_NUMBER})*",
    "lengths": r"\d{1,18}( \d{1,18})*",
}


@dataclass(frozen=True)
class Result:
    """One run. The lengths suffice to compute every score again; see `check_folder`.

    Attributes:
        task: its name.
        identity: of the task; see `Task.identity`.
        table: first 12 digits of the hash of its outcome table.
        method: its name.
        seed: of the run.
        weights: entry of the task's sweep, with objectives; else empty.
        decisions: of training.
        seconds: of training, with its measurements on the validation scenes.
        objective: normalised score on the validation scenes at the end; empty with objectives.
        objective_test: normalised score on the test scenes, measured once; empty with objectives.
        curve: ``decisions:score`` on the validation scenes, separated by blanks.
        lengths: tokens kept of each clip of the test scenes, row by row, separated by blanks.
    """

    task: str
    identity: str
    table: str
    method: str
    seed: int
    weights: str
    decisions: int
    seconds: float
    objective: str
    objective_test: str
    curve: str
    lengths: str

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Result:
        """From a row of a CSV.

        Raises:
            ValueError: a column is missing, or not a number where there should be one.
        """
        names = [entry.name for entry in fields(cls)]
        missing = [name for name in names if row.get(name) is None]
        if missing:
            raise ValueError(f"Expected the columns of `vaportok-rl benchmark run`, got none named {missing[0]!r}.")
        for name, form in _FORMS.items():
            if not re.fullmatch(form, row[name], re.ASCII):
                shown = row[name] if len(row[name]) < 60 else f"{row[name][:60]}…"
                raise ValueError(f"Expected {_WHOLE if name == 'lengths' else 'numbers'} as {name}, got {shown!r}.")
        kinds = {"seed": int, "decisions": int, "seconds": float}
        return cls(**{name: kinds.get(name, str)(row[name]) for name in names})

    @property
    def n_tokens(self) -> Tensor:
        """The lengths, ``int64 [clips]``."""
        return torch.tensor([int(length) for length in self.lengths.split()])

    @property
    def points(self) -> list[tuple[int, float]]:
        """The learning curve: decisions and scores."""
        pairs = [point.split(":") for point in self.curve.split()]
        return [(int(decisions), float(score)) for decisions, score in pairs]

    def belongs_to(self, task: Task, table: str) -> bool:
        """Whether it was measured on this version of the task, and on the table with this hash."""
        return (self.task, self.identity, self.table) == (task.name, task.identity, table[:12])

    @property
    def part(self) -> tuple[float, ...]:
        """The weights as numbers."""
        return tuple(float(weight) for weight in self.weights.split())


def arena_of(task: Task, weights: tuple[float, ...] = (), table: str | None = None) -> Arena:
    """A task with its table opened, once per process."""
    return opened(task, weights, table)


@lru_cache(maxsize=16)
def opened(task: Task, weights: tuple[float, ...], table: str | None) -> Arena:
    """`arena_of`, whose calls may leave arguments out, which a cache would take for others."""
    return Arena(task, table, weights)


def run_method(
    method: Method, task: Task, seed: int, table: str | None = None, decisions: int | None = None
) -> list[Result]:
    """Trains and measures a method once: one result per entry of the task's sweep, which share its decisions.

    Args:
        method: the method.
        task: the task.
        seed: of all random numbers.
        table: folder of another outcome table, for tests.
        decisions: of training; the task's by default, which is what a submission must use.

    Raises:
        ValueError: the method is not made for this task.
    """
    if task.name not in method.tasks:
        made_for = ", ".join(method.tasks)
        raise ValueError(f"Expected a task that {method.name} is made for ({made_for}), got {task.name}; choose one.")
    found = []
    for weights in task.sweep:
        arena = arena_of(task, weights, table)
        run = Run(arena, seed, (decisions or task.decisions) // len(task.sweep))
        begun = time.perf_counter()
        act = method.learn(run)
        run.measure(run.decisions, act, always=True)
        seconds = time.perf_counter() - begun
        lengths = arena.play("test", act)
        scalar = not task.objectives
        found.append(
            Result(
                task=task.name,
                identity=task.identity,
                table=fingerprint(arena.table)[:12],
                method=method.name,
                seed=seed,
                weights=" ".join(f"{weight:g}" for weight in weights),
                decisions=run.decisions,
                seconds=round(seconds, 2),
                objective=f"{run.curve[-1][1]:.6f}" if scalar else "",
                objective_test=f"{arena.score('test', lengths):.6f}" if scalar else "",
                curve=" ".join(f"{done}:{score:.4f}" for done, score in run.curve),
                lengths=" ".join(map(str, lengths.flatten().tolist())),
            )
        )
    return found


def score_of_seed(task: Task, results: Sequence[Result], table: str | None = None) -> float:
    """The normalised score on the test scenes of one seed's results, computed from their lengths.

    With objectives, it is of the sweep's hypervolume: 0 is that of the best fixed length for each weighting, 1 the
    oracle's.
    """
    arena = arena_of(task, table=table)
    scenes = arena.scenes("test")
    lengths = [result.n_tokens.view(scenes.shape) for result in results]
    if not task.objectives:
        return arena.score("test", lengths[0])
    bounds = arena.sweep_volumes
    volume = arena.volume([arena.vector("test", some) for some in lengths])
    return float(share_between(volume, bounds.fixed, bounds.oracle))


def read_results(folder: Path) -> list[Result]:
    """The results in a method's folder; none if there is no file yet.

    Raises:
        ValueError: the file is no table of results.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [Result.of(row) for row in csv.DictReader(file)]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"Expected results in {path}, got a damaged file ({error}); write it again.") from error


def write_results(folder: Path, results: Sequence[Result]) -> Path:
    """Adds results to a method's folder; those of the same task and seed are replaced."""
    done = {(result.task, result.seed) for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    names = [entry.name for entry in fields(Result)]
    with FileLock(folder / LOCK_FILE):  # another process may add its rows to the file
        kept = [old for old in read_results(folder) if (old.task, old.seed) not in done]
        rows = sorted((*kept, *results), key=lambda result: (result.task, result.seed))
        with whole_write(folder / RESULTS_FILE) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([getattr(row, name) for name in names] for row in rows)
    return folder / RESULTS_FILE


def run_seeds(
    method: Method,
    task: Task,
    seeds: Sequence[int],
    folder: Path,
    on_seed: Callable[[int, float], None] = lambda seed, score: None,
    decisions: int | None = None,
) -> int:
    """Runs the seeds that the folder does not hold yet, and writes each as soon as it is done.

    Args:
        method: the method.
        task: the task.
        seeds: one run each.
        folder: of the method.
        on_seed: called with each seed and its score on the test scenes.
        decisions: see `run_method`; no fewer than those of the results that are there.

    Returns:
        How many of the seeds the folder held already.

    Raises:
        ValueError: there are fewer decisions than weightings, or the folder holds longer runs, which would be
            replaced, or damaged results.
    """
    asked = (decisions or task.decisions) // len(task.sweep)
    if asked < 1:
        raise ValueError(
            f"Expected a decision for each of the {len(task.sweep)} weightings of {task.name}, got {decisions}; train "
            "for more."
        )
    table = fingerprint(arena_of(task).table)
    held = {old.seed: old.decisions for old in read_results(folder) if old.belongs_to(task, table)}
    longer = [seed for seed in seeds if held.get(seed, 0) > asked]
    if longer:
        raise ValueError(
            f"Expected no fewer decisions than the {held[longer[0]]:,} of {task.name}, seed {longer[0]}, in "
            f"{folder / RESULTS_FILE}, which would be replaced, got {asked:,}; choose another --out."
        )
    for seed in seeds:
        if held.get(seed) != asked:
            results = run_method(method, task, seed, decisions=decisions)
            write_results(folder, results)
            on_seed(seed, score_of_seed(task, results))
    return sum(held.get(seed) == asked for seed in seeds)
