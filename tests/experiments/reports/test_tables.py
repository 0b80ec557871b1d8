"""The scoreboard fits a terminal and shows the comparison's numbers."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from vaportok_rl.agents import Comparison, HeldOut
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.reports.evaluation import Evaluation, judged, policy_intervals
from vaportok_rl.experiments.reports.tables import (
    SCOREBOARD,
    cautions,
    report_tables,
    runs_table,
    scoreboard,
    verdict,
)


@pytest.fixture(scope="module")
def held_out(tiny_world: str) -> HeldOut:
    return HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=3, split="test"), scenes=2)


@pytest.fixture(scope="module")
def comparison(held_out: HeldOut) -> Comparison:
    return held_out.compare(
        {"loss-proportional": held_out.scene.ids * 0 + 16, "threshold:0.005:binary": held_out.scene.ids % 16 + 1}
    )


@pytest.mark.parametrize("width", [60, 80])
def test_the_scoreboard_fits_a_terminal_and_ranks_by_what_is_saved(comparison: Comparison, width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    intervals = policy_intervals(comparison)
    intervals["best_fixed"] = {"saved": (-1.16, 1.06)}
    console.print(scoreboard(comparison, intervals, width))
    text = console.file.getvalue()
    assert "…" not in text
    assert {"loss-", "threshold:"} <= set(re.findall(r"\S+", text))  # names too, but for words of more than a line
    assert re.search(r"(^|:)0\.005:", text, re.MULTILINE)
    assert len(SCOREBOARD) <= 7
    ranked = sorted(comparison.scores, key=lambda name: -comparison.savings(name)["saved"])
    starts = [text.index(f"\n{name.replace('_', ' ')[:4]}") for name in ranked]
    assert starts == sorted(starts)
    # No number is cut: all of a row's numbers are there, each in one piece.
    for name, row in comparison.results().items():
        for _, metric, write in SCOREBOARD:
            assert math.isnan(row[metric]) or re.search(rf"(^|\s){re.escape(write(row[metric]))}($|\s)", text), name
        write = SCOREBOARD[2][2]
        assert all(write(end) in text for end in intervals[name]["saved"])


def test_the_report_has_every_policy_metric_and_interval(comparison: Comparison) -> None:
    intervals = {name: {"reward": (-1.0, 2.0), "tokens": (math.nan, math.nan)} for name in comparison.scores}
    tables = [part for part in report_tables(comparison, intervals) if part.startswith("|")]
    lines = tables[0].splitlines()
    header = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert {row[0].replace("best fixed", "best_fixed") for row in rows} == set(comparison.scores)
    for row in rows:
        assert len(row) == len(header)
        name = row[0].replace("best fixed", "best_fixed")
        assert row[header.index("reward")] == f"{comparison.reward(name):.3f} [-1.000, 2.000]"
        assert "[" not in row[header.index("tokens")]
    for term in ("efficiency", "penalty", "diversity", "reconstruction", "generation"):
        assert term in tables[2]


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.2), "it beats"),
        ((-0.2, -0.01), "is worse"),
        ((-0.1, 0.1), "not shown to beat"),
        ((math.nan, math.nan), "too few"),
    ],
)
def test_the_verdict_follows_the_interval(comparison: Comparison, interval: tuple[float, float], words: str) -> None:
    intervals = {"loss-proportional": {"saved": interval}}
    assert words in verdict(comparison, intervals, "loss-proportional")


def test_cautions(comparison: Comparison) -> None:
    renamed = comparison.scores | {"random": comparison.scores["oracle"]}
    fooled = Comparison(renamed, comparison.worst, dict.fromkeys(renamed, 0.0), comparison.every, comparison.allowed)
    assert not cautions(comparison, 0.5, "oracle")
    assert len(cautions(comparison, 0.05, "oracle")) == 1
    assert "reward" in cautions(fooled, None, "loss-proportional")[0]


def test_runs_with_their_intervals() -> None:
    metric = {"interquartile_mean": 0.5, "interval": (0.25, 0.75), "values": [0.25, 0.5, 0.75]}
    console = Console(width=100, file=io.StringIO())
    console.print(runs_table({"grpo": dict.fromkeys(("tokens", "saved", "saved_share", "reward"), metric)}, width=100))
    row = " ".join(console.file.getvalue().splitlines()[-1].split())
    assert row == "grpo 3 0.5 [0.2, 0.8] +50.0 [+25.0, +75.0] 50 [25, 75] 0.500 [0.250, 0.750]"


@pytest.mark.parametrize("intervals", [False, True])
def test_a_notebook_shows_the_scoreboard_and_escapes_names(
    held_out: HeldOut, comparison: Comparison, intervals: bool
) -> None:
    shown: Comparison | Evaluation = replace(
        comparison,
        scores={"<b>mine": comparison.scores["loss-proportional"], **comparison.scores},
        spearman={"<b>mine": 0.0, **comparison.spearman},
    )
    if intervals:
        shown = judged(held_out, shown)
    text = shown._repr_html_()
    assert "<b>" not in text
    assert "&lt;b&gt;mine" in text
    assert text.count("<tr>") == 1 + len(comparison.scores) + 1
    assert all(f">{SCOREBOARD[0][2](row['tokens'])}<" in text for row in comparison.results().values())
    assert (" [" in text) == intervals
    assert repr(shown).count("\n|") == 2 + len(comparison.scores) + 1
