"""The views of the leaderboard against numbers worked out by hand, and from CSVs with made-up lengths."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vaportok_rl.benchmark import TASKS
from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.report import look_ahead, task_table, write_report
from vaportok_rl.benchmark.running import Result, arena_of, write_results
from vaportok_rl.benchmark.standings import Standing, standings
from vaportok_rl.benchmark.tables import fingerprint
from vaportok_rl.benchmark.views import is_optimiser, learnable_table, optimisers_table, write_views


def row(method: str, scores: dict[int, float], saved: float = 0.1, seconds: float = 4.0) -> Standing:
    """Runs with these scores by seed; error saved grows by 0.01 a seed."""
    flat = np.zeros(len(scores))
    return Standing(
        method,
        scores=np.array(list(scores.values())),
        share=flat,
        saved=np.array([saved + 0.01 * seed for seed in scores]),
        tokens=flat,
        area=flat,
        seconds=flat + seconds,
        curves=tuple([(0, 0.0), (100, score)] for score in scores.values()),
        lengths=torch.ones(len(scores), 2, 4, dtype=torch.int64),
        decisions=1000.0,
        seeds=tuple(scores),
    )


def cells(table: str) -> dict[str, list[str]]:
    """The cells of each row but the headings, by the first of them."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: others for name, *others in lines}


GRPO = row("grpo", {2: 0.7, 0: 0.8, 1: 0.6}, saved=0.2)


def test_differences_are_of_runs_with_the_same_seed() -> None:
    ppo = row("ppo", {0: 0.5, 1: 0.6, 2: 0.7}, seconds=8.0)
    dqn = row("dqn", {0: 0.7, 2: 0.4, 7: 9.0})  # without seed 1, and with one that GRPO lacks
    alone = row("cem", {1: 0.25}, seconds=0.0)
    found = cells(optimisers_table([GRPO, ppo, dqn, alone]))
    # (0.8 - 0.5, 0.6 - 0.6, 0.7 - 0.7): mean 0.1; resamples of three go from all 0 to all 0.3.
    assert found["grpo"][3:5] == ["–", "–"]
    assert found["ppo"] == [
        "3",
        "0.600 [0.500, 0.700]",
        "+11.0 [+10.0, +12.0]",
        "+0.100 [+0.000, +0.300]",
        "+10.0 [+10.0, +10.0]",
        "1,000",
        "8.0",
        "125",
    ]
    assert found["dqn"][0] == "3"
    assert found["dqn"][3:5] == ["+0.200 [+0.100, +0.300]", "+10.0 [+10.0, +10.0]"]
    assert found["cem"][:5] == ["1", "0.250", "+11.0", "+0.350", "+10.0"]
    assert found["cem"][-1] == "–"
    assert cells(optimisers_table([ppo]))["ppo"][3:5] == ["–", "–"]  # GRPO has no results


def test_shares_of_the_best_informed_method() -> None:
    rows = [row("oracle", {0: 1.0}), GRPO, row("router", {0: 0.5, 1: 0.5}), row("value", {0: 0.4}), row("ppo", {0: 0})]
    found = cells(learnable_table(rows))
    assert {name: cell for name, (*_, cell) in found.items()} == {
        "grpo": "140 %",
        "router": "100 %",
        "value": "80 %",
        "ppo": "0 %",
    }
    for without in ([GRPO], [GRPO, row("router", {0: -0.5})]):  # nothing informed, or worse than a fixed length
        assert cells(learnable_table(without))["grpo"][-1] == "–"


def test_which_methods_are_optimisers() -> None:
    assert {name for name in (*METHODS, "theirs") if is_optimiser(name)} == {
        *("linucb", "cem", "reinforce", "a2c", "ppo", "maskable-ppo", "dqn", "grpo-source", "grpo", "enumerated"),
        "theirs",
    }


def test_pages_without_results_say_so(tmp_path: Path) -> None:
    optimisers, learnable = (path.read_text() for path in write_views({}, tmp_path))
    assert "no results of `procedural-v1`" in optimisers
    assert "](images/" not in optimisers
    assert learnable.count("no results of") == 3
    assert "pareto-v1" not in learnable  # which has no such score
    page = write_views({"budget-v1": [GRPO]}, tmp_path)[1].read_text()
    assert "No informed method" in page
    assert page.count("no results of") == 2


def test_each_run_is_compared_with_the_method_below() -> None:
    rows = [
        row("oracle", {0: 1.0, 1: 1.0}),
        row("a", {0: 0.9, 1: 0.4}),
        row("b", {0: 0.5, 1: 0.5}),
        row("c", {0: 0.6, 1: 0.4}),  # as good as b on average
        row("d", {0: 0.0}),
    ]
    found = cells(task_table(TASKS["procedural-v1"], rows))
    assert [found[name][2] for name in "abcd"] == ["0.50", "0.50", "0.50", ""]
    assert found["oracle"][2] == ""
    by_task = {name: task_table(TASKS[name], rows).splitlines()[0] for name in ("procedural-v1", "pareto-v1")}
    assert ["area" in heading for heading in by_task.values()] == [True, False]
    assert ["share of the front" in heading for heading in by_task.values()] == [False, True]


def test_what_looking_ahead_is_worth(pinned: dict[str, Path]) -> None:
    task = TASKS["stream-v1"]
    arena = arena_of(task)
    shape = arena.scenes("test").shape
    lengths = dict(zip(("planner", "linucb", "complexity-affine", "best-fixed"), (8, 16, 3, 1), strict=True))
    rows = [
        replace(row(name, {0: 0.5}), lengths=torch.full((1, *shape), length), seeds=(0,))
        for name, length in lengths.items()
    ]
    ahead, alone = (arena.reward("test", torch.full(shape, n)) for n in (8, 3))  # linucb sees the purse: neither
    bounds = arena.bounds("test")
    worth = (ahead - alone) / (bounds.oracle - bounds.fixed)
    assert abs(worth) > 0.01
    assert f"planner scores {worth:+.3f} [" in look_ahead(task, rows)
    assert "complexity-affine, the best that decides clip by clip" in look_ahead(task, rows)
    assert look_ahead(task, rows[:2]) == look_ahead(TASKS["budget-v1"], rows) == ""


def test_the_runs_of_a_sweep_count_together_and_those_of_old_versions_do_not(
    pinned: dict[str, Path], tmp_path: Path
) -> None:
    task = TASKS["pareto-v1"]
    arena = arena_of(task)
    shape = arena.scenes("test").shape

    def mixed(length: int) -> torch.Tensor:
        """One clip of each path has one token: a fixed length saves nothing."""
        found = torch.full(shape, length)
        found[:, 0] = 1
        return found

    def swept(seed: int, lengths: Sequence[int], identity: str = task.identity) -> list[Result]:
        table = fingerprint(pinned[task.table])[:12]
        return [
            Result(
                *(task.name, identity, table, "mine", seed, " ".join(map(str, weights)), 5, 2.0, "", "", "5:0.5"),
                lengths=" ".join(map(str, mixed(length).flatten().tolist())),
            )
            for weights, length in zip(task.sweep, lengths, strict=True)
        ]

    kept = {0: range(1, 9), 1: range(9, 17)}
    for seed, lengths in kept.items():
        write_results(tmp_path / "mine", swept(seed, lengths))
    write_results(tmp_path / "old", swept(0, kept[0], "0" * 12))
    write_results(tmp_path / "small", swept(0, [1] * 8))
    found = standings(tmp_path)[task.name]
    assert len(found) == 2
    assert found[0].middle > found[1].middle
    mine = next(one for one in found if one.method == "mine")
    every = [[mixed(length) for length in lengths] for lengths in kept.values()]
    tokens = [float(torch.stack(some).double().mean()) for some in every]
    volumes = np.array([arena.volume(arena.vector("test", one) for one in some) for some in every])
    fixed, oracle = arena.sweep_volumes.fixed, arena.sweep_volumes.oracle
    assert mine.seeds == (0, 1)
    assert mine.scores == pytest.approx((volumes - fixed) / (oracle - fixed))
    assert mine.share == pytest.approx(volumes / arena.front_volume)
    assert mine.saved == pytest.approx([np.mean([arena.saved("test", one) for one in some]) for some in every])
    assert len({round(float(arena.saved("test", one)), 6) for one in every[0]}) > 1
    assert (mine.seconds.tolist(), mine.tokens.tolist(), mine.decisions) == ([16, 16], tokens, 40)
    assert (mine.curves, bool(np.isnan(mine.area).all())) == ((), True)


def test_from_files_to_pages(pinned: dict[str, Path], tmp_path: Path) -> None:
    """Runs that keep one length everywhere: their scores follow from the rewards of the fixed lengths."""
    kept = {"grpo": {0: 5, 1: 9, 2: 3}, "ppo": {0: 2, 2: 16}, "enumerated": {0: 7}, "random": {0: 4}}
    task = TASKS["procedural-v1"]
    arena = arena_of(task)
    clips = arena.scenes("test").numel()
    for method, lengths in kept.items():
        results = [
            Result(
                *(task.name, task.identity, fingerprint(pinned[task.table])[:12], method, seed, "", 500, 2.0, "", ""),
                curve="0:0.0 500:0.5",
                lengths=" ".join([str(length)] * clips),
            )
            for seed, length in lengths.items()
        ]
        write_results(tmp_path / "leaderboard" / method, results)
    written = {path.name: path for path in write_report(tmp_path / "leaderboard", tmp_path / "docs")}
    assert {"leaderboard.md", "optimisers.md", "learnable.md", "optimisers.png"} <= set(written)
    page = written["optimisers.md"].read_text()
    assert f"{clips} test clips, seeds 0, 1, 2." in page
    found = cells(page[page.index("| method") :].split("\n\n")[0])
    assert set(found) == {"grpo", "ppo", "enumerated"}
    rewards = arena.fixed_rewards("test").numpy()
    scores = (rewards - rewards.max()) / (arena.reward("test", arena.oracle("test")) - rewards.max())
    differences = [scores[5 - 1] - scores[2 - 1], scores[3 - 1] - scores[16 - 1]]
    assert found["ppo"][3].split()[0] == f"{np.mean(differences):+.3f}"
    assert found["ppo"][-3:] == ["500", "2.0", "250"]
    saved = [arena.saved("test", torch.full_like(arena.scenes("test"), length)) for length in (5, 7)]
    assert float(found["enumerated"][4]) == pytest.approx(100 * (saved[0] - saved[1]), abs=0.051)
    text = written["learnable.md"].read_text()
    assert f"{scores[7 - 1]:.3f}, by `enumerated`" in text
    assert text.count("no results of") == 2
