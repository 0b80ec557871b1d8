"""Parts of pages that are written from the results of several steps."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.agents.scoreboard import HEADINGS, SCOREBOARD, spoken
from vaportok_rl.runtime.declared import options_table
from vaportok_rl.runtime.markdown import first_table, markdown_table


def grpo_options(work: Path) -> str:
    """Every option of GRPO."""
    return options_table(GRPOOptions)


def table_of(work: Path, page: str) -> str:
    """The first table of a page in a step's folder."""
    return first_table((work / page).read_text(encoding="utf-8"))


def body_of(work: Path, page: str) -> str:
    """A page in a step's folder without its title."""
    return (work / page).read_text(encoding="utf-8").partition("\n\n")[2]


def worlds_picture(work: Path) -> str:
    """The picture of the same clips under two tokenizers."""
    return "![The same eight clips from 4, 16 and 64 tokens, weights before and now](docs/images/worlds.png)"


def generated_clips(work: Path) -> str:
    """The animation of real and generated clips, and how many of these a classifier names."""
    with (work / "generations" / "generations.csv").open(encoding="utf-8") as file:
        named = np.mean([float(row["generated"]) for row in csv.DictReader(file)])
    picture = "![A real and a generated clip of each class](docs/images/evidence/generations.webp)"
    return (
        "Of each class a real clip and, to its right, a generated one; a classifier [names the class of "
        f"{100 * named:.0f} %](docs/results.md#figure-8-generated-clips) of the generated ones:\n\n{picture}"
    )


def scoreboard(work: Path) -> str:
    """The scoreboard of `train` without options: one row per policy, highest saving first."""
    results = _results(work / "train")
    rows = []
    for name in sorted(results["intervals"], key=lambda name: -results[name]["saved"]):
        cells = [write(results[name][metric]).replace("-", "−") for _, metric, write in SCOREBOARD]
        place = [metric for _, metric, _ in SCOREBOARD].index("saved")
        cells[place] = _with_ends(results[name]["saved"], results["intervals"][name]["saved"])
        rows.append((spoken(name), *cells))
    return markdown_table(HEADINGS, rows)


def films(work: Path, folds: Sequence[int], seeds: Sequence[int]) -> str:
    """Savings on each fold of the films in per cent: means over seeds, also of the ends of the 95 % intervals."""
    rows = []
    for name in ("trained", "pretrained", "random", "oracle"):
        cells = []
        for fold in folds:
            runs = [_results(work / f"film-{fold}-{seed}") for seed in seeds]
            ends = np.mean([run["intervals"][name]["saved"] for run in runs], axis=0)
            cells.append(_with_ends(np.mean([run[name]["saved"] for run in runs]), ends))
        rows.append((name, *cells))
    return markdown_table(("saved %", *(f"fold {fold}" for fold in folds)), rows)


def _results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def _with_ends(share: Any, ends: Any) -> str:
    """A share and its interval, in per cent."""
    value, low, high = (f"{round(100 * part, 1) + 0.0:+.1f}" for part in (share, *ends))
    return f"{value} [{low}, {high}]".replace("-", "−")
