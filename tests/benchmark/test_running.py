"""Runs and their file: the decisions of a sweep, the end of the curve, and which rows are kept, repeated or refused."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from vaportok_rl.benchmark import TASKS, Task, running
from vaportok_rl.benchmark.methods.method import Method, Run
from vaportok_rl.benchmark.running import Result, arena_of, read_results, run_method, run_seeds, write_results
from vaportok_rl.benchmark.tables import fingerprint
from vaportok_rl.runtime.held_folders import LOCK_FILE


def learn(run: Run):  # type: ignore[no-untyped-def]  # as in a submission
    """Four tokens for each clip; measured just before the end."""
    run.measure(run.decisions - 1, lambda seen: torch.full((len(seen),), 3))
    return lambda env, state: torch.full((len(state.purse),), 3)


FOUR = Method("four", "", learn)


@pytest.mark.parametrize(("task", "each"), [("procedural-v1", 64), ("pareto-v1", 8)])
def test_a_sweep_shares_the_decisions_and_a_curve_ends_with_them(pinned: dict[str, Path], task: str, each: int) -> None:
    results = run_method(FOUR, TASKS[task], 3, decisions=64)
    assert [result.part for result in results] == list(TASKS[task].sweep)
    for result in results:
        assert (result.seed, result.decisions, [done for done, _ in result.points]) == (3, each, [each - 1, each])
        assert set(result.n_tokens.tolist()) == {4}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, pinned: dict[str, Path]) -> list[tuple[str, int]]:
    """Tasks and seeds of the runs that were made; the runs are made up."""
    made: list[tuple[str, int]] = []

    def made_up(method: Method, task: Task, seed: int, decisions: int) -> list[Result]:
        made.append((task.name, seed))
        table = fingerprint(pinned[task.table])[:12]
        return [Result(task.name, task.identity, table, "four", seed, "", decisions, 1.0, "0.5", "0.5", "8:0.5", "4")]

    monkeypatch.setattr(running, "run_method", made_up)
    monkeypatch.setattr(running, "score_of_seed", lambda *_: 0.5)
    return made


def test_a_table_is_opened_once_however_it_is_asked_for(pinned: dict[str, Path]) -> None:
    task = TASKS["procedural-v1"]
    assert arena_of(task) is arena_of(task, table=None) is arena_of(task, (), None)
    elsewhere = str(pinned[TASKS["stream-v1"].table])
    assert str(arena_of(task, table=elsewhere).table) == elsewhere
    weights = TASKS["pareto-v1"].sweep[:2]
    assert tuple(arena_of(TASKS["pareto-v1"], some).weights for some in weights) == tuple(weights)


def test_runs_are_made_once_for_each_task_seed_version_and_length(
    trained: list[tuple[str, int]], tmp_path: Path
) -> None:
    one, other = TASKS["procedural-v1"], TASKS["budget-v1"]
    assert run_seeds(FOUR, one, [0, 1], tmp_path, decisions=8) == 0
    assert run_seeds(FOUR, other, [1], tmp_path, decisions=8) == 0
    assert run_seeds(FOUR, one, [0, 1, 2], tmp_path, decisions=8) == 2
    assert trained == [(one.name, 0), (one.name, 1), (other.name, 1), (one.name, 2)]
    assert sorted((row.task, row.seed) for row in read_results(tmp_path)) == sorted(trained)
    trained.clear()
    old = [replace(row, table="0" * 12) for row in read_results(tmp_path) if row.task == one.name and row.seed == 0]
    write_results(tmp_path, old)  # of another table: made again, and replaced
    assert run_seeds(FOUR, one, [0, 1], tmp_path, decisions=8) == 1
    assert run_seeds(FOUR, one, [1], tmp_path, decisions=16) == 0  # longer
    assert trained == [(one.name, 0), (one.name, 1)]
    with pytest.raises(ValueError, match=r"the 16 of .*seed 1"):
        run_seeds(FOUR, one, [1], tmp_path, decisions=8)
    assert len(read_results(tmp_path)) == 4


def test_rows_that_another_process_adds_at_the_same_time_are_kept(tmp_path: Path) -> None:
    row = Result("procedural-v1", "", "", "four", 0, "", 8, 1.0, "0.5", "0.5", "8:0.5", "4")
    writer = threading.Thread(target=write_results, args=(tmp_path, [row]))
    with FileLock(tmp_path / LOCK_FILE):
        writer.start()
        writer.join(0.2)
        assert read_results(tmp_path) == []
        other = write_results(tmp_path / "other", [replace(row, seed=1)])
        other.rename(tmp_path / other.name)
    writer.join()
    assert [found.seed for found in read_results(tmp_path)] == [0, 1]
