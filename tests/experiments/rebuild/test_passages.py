"""Passages written from results that stand in for those of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaportok_rl.agents.scoreboard import SCOREBOARD
from vaportok_rl.experiments.rebuild.figures import figures
from vaportok_rl.experiments.rebuild.passages import films, generated_clips, scoreboard, table_of


def results(saved: float) -> dict[str, Any]:
    metrics = {metric: 0.5 for _, metric, _ in SCOREBOARD}
    policies = {"trained": saved, "best_fixed": 0.0, "random": -0.36, "pretrained": -0.01, "oracle": 0.131}
    return {
        **{name: {**metrics, "saved": value} for name, value in policies.items()},
        "intervals": {name: {"saved": [value - 0.02, value + 0.01]} for name, value in policies.items()},
        "curves": {"tokens": [], "saved": []},
        "saved": saved,
    }


def write(folder: Path, saved: float) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results(saved)))


def test_the_scoreboard_begins_with_the_policy_that_saves_most(tmp_path: Path) -> None:
    write(tmp_path / "train", 0.14)
    text = scoreboard(tmp_path)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        "trained",
        "oracle",
        "best fixed",
        "pretrained",
        "random",
    ]
    found = {key[1:3]: figure for key, figure in figures(text).items()}
    assert found["policy trained", "saved %"].interval == (12.0, 15.0)
    assert found["policy random", "saved %"].value == -36.0
    assert found["policy trained", "tokens"].value == 0.5


def test_films_are_means_over_seeds(tmp_path: Path) -> None:
    for fold in (1, 2):
        for seed, saved in enumerate((0.01, 0.03)):
            write(tmp_path / f"film-{fold}-{seed}", saved * fold)
    found = {key[1:3]: figure for key, figure in figures(films(tmp_path, (1, 2), (0, 1))).items()}
    assert found["saved % trained", "fold 1"].value == 2.0
    assert found["saved % trained", "fold 2"].interval == (2.0, 5.0)
    assert found["saved % random", "fold 2"].value == -36.0


def test_a_table_of_another_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# T\n\n| a |\n| - |\n| 1 |\n\nx\n")
    assert table_of(tmp_path, "page.md") == "| a |\n| - |\n| 1 |"


def test_generated_clips_are_shown_with_the_share_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "generations.csv").write_text("class,generated\nzooms,1.0\nfades,0.5\n")
    assert "names the class of 75 %]" in generated_clips(tmp_path)
