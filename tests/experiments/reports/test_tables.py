"""The tables fit a terminal, and say what the comparison says."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from vaportok_rl.agents import Comparison, HeldOut
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.reports.tables import comparison_tables, markdown_table, runs_table


@pytest.fixture(scope="module")
def comparison(tiny_world: str) -> Comparison:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    held_out = HeldOut(process, scenes=2)
    return held_out.compare(
        {"loss-proportional": held_out.scene.ids * 0 + 16, "threshold:0.005:binary": held_out.scene.ids % 16 + 1}
    )


def test_the_tables_fit_a_terminal_and_rank_by_reward(comparison: Comparison) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(*comparison_tables(comparison, "title"))
    text = console.file.getvalue()
    assert "…" not in text
    parts = re.split("allocation|reward terms", text)
    ranked = sorted(comparison.scores, key=comparison.reward)
    names = [name.replace("_", " ") for name in ranked]
    for part in parts:
        rows = [line.strip() for line in part.splitlines() if line.strip().startswith(tuple(names))]
        assert [row[: len(name)] for row, name in zip(rows, names, strict=True)] == names
    for term in ("efficiency", "penalty", "diversity", "reconstruction", "generation"):
        assert term in parts[2]
    assert "0.0%" in next(line for line in parts[0].splitlines() if "best fixed" in line)
    assert "–" in next(line for line in parts[1].splitlines() if "best fixed" in line)


def test_markdown_has_every_policy_figure_and_interval(comparison: Comparison) -> None:
    intervals = {name: {"reward": (-1.0, 2.0), "tokens": (math.nan, math.nan)} for name in comparison.scores}
    lines = markdown_table(comparison, intervals, "title").splitlines()
    header = [cell.strip() for cell in lines[2].strip("|").split("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4 : 4 + len(comparison.scores)]]
    assert all(len(row) == len(header) for row in rows)
    for row in rows:
        name = row[0].replace("best fixed", "best_fixed")
        assert row[header.index("reward")] == f"{comparison.reward(name):.4f} [-1.0000, 2.0000]"
        assert "[" not in row[header.index("tokens")]


def test_runs_with_their_intervals() -> None:
    figure = {"interquartile_mean": 0.5, "interval": (0.25, 0.75), "values": [0.25, 0.5, 0.75]}
    console = Console(width=80, file=io.StringIO())
    console.print(runs_table({"grpo": dict.fromkeys(("tokens", "reward", "gap_closed"), figure)}))
    assert re.search(
        r"grpo\s+3\s+0.5 \[0.2, 0.8\]\s+0.5000 \[0.2500, 0.7500\]\s+50.0% \[25.0%, 75.0%\]", console.file.getvalue()
    )
