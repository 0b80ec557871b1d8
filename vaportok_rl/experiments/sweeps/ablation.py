"""The source's Table 1: the reward, and each of its five terms left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaportok_rl.envs.rewards.reward import build_reward
from vaportok_rl.envs.rewards.terms import FIVE_TERMS
from vaportok_rl.experiments.runs.training import TrainSettings
from vaportok_rl.experiments.sweeps.columns import COLUMNS
from vaportok_rl.experiments.sweeps.medians import OVER_SEEDS, by_seed, median_cell, stated
from vaportok_rl.experiments.sweeps.plan import DISTANCES
from vaportok_rl.runtime.markdown import markdown_table, write_page
from vaportok_rl.runtime.whole_writes import whole_write

CSV_FILE, PAGE_FILE = "ablation.csv", "ablation.md"
FULL = "full"
VARIANTS: Mapping[str, Mapping[str, Any]] = {FULL: {}} | {
    f"without-{term}": {f"reward.weights.{term}": 0.0} for term in FIVE_TERMS
}
"""Settings of `train` that each variant changes."""
FIRST_COLUMNS = ("variant", "seed", "tokens", "mse", "psnr", "accuracy", "rfvd", "gfvd", "reward")
"""The first columns of the CSV; ``reward`` is the reward of all terms, whichever was left out in training."""

_METRICS = ("tokens", "rfvd", "psnr", "gfvd", "mse", "accuracy")
SOURCE = dict(
    zip(
        VARIANTS,
        (
            (299, 72.5, 24.1, 118, 4.85e-3, 0.0324),
            (577, 59.4, 25.6, 88.46, 3.89e-3, 0.0388),
            (58, 3267, 10.7, 3255.59, 9.45e-2, 0.0273),
            (305, 75.4, 24.7, 105.85, 4.80e-3, 0.0324),
            (272, 91.6, 23.3, 138.58, 5.83e-3, 0.0313),
            (286, 83.6, 23.8, 122.21, 5.33e-3, 0.0317),
        ),
        strict=True,
    )
)
"""The source's Table 1, in the order of `_METRICS`; tokens of 1,024, distances by I3D on UCF101's clips."""

_Value = Callable[[str, str], float]
_CLAIMS: tuple[tuple[str, Callable[[_Value], bool]], ...] = (
    (
        "tokens: without `efficiency` > full",
        lambda value: value("without-efficiency", "tokens") > value(FULL, "tokens"),
    ),
    (
        "tokens: full ≥ without `reconstruction`",
        lambda value: value(FULL, "tokens") >= value("without-reconstruction", "tokens"),
    ),
    (
        "tokens: without `reconstruction` > without `penalty`",
        lambda value: value("without-reconstruction", "tokens") > value("without-penalty", "tokens"),
    ),
    (
        "tokens: without `penalty` < a quarter of full",
        lambda value: value("without-penalty", "tokens") < value(FULL, "tokens") / 4,
    ),
    (
        "MSE: highest without `penalty`",
        lambda value: value("without-penalty", "mse") > max(_others(value, "without-penalty")),
    ),
    (
        "MSE: lowest without `efficiency`",
        lambda value: value("without-efficiency", "mse") < min(_others(value, "without-efficiency")),
    ),
)


def _others(value: _Value, variant: str) -> list[float]:
    return [value(name, "mse") for name in VARIANTS if name != variant]


def ablation_frame(rows: Sequence[Mapping[str, Any]], settings: TrainSettings) -> pd.DataFrame:
    """A row per variant and seed: `FIRST_COLUMNS`, then what the sweep measures besides.

    Args:
        rows: of the sweep of `VARIANTS`.
        settings: of its runs; ``reward`` is computed from its weights at the end of training.
    """
    reward = build_reward(asdict(settings.reward))
    reward.restore({"decisions": settings.decisions})
    frame = pd.DataFrame(list(rows))
    frame["reward"] = sum(weight * frame[f"reward_{term}"] for term, weight in reward.weights_now().items())
    frame = frame.reindex(columns=[*FIRST_COLUMNS, *(name for name in frame if name not in FIRST_COLUMNS)])
    return frame.drop(columns=[name for name in frame if str(name).startswith("reward.")])


def ablation_table(frame: pd.DataFrame) -> str:
    """Table 1: medians with intervals, each beside the source's."""
    lines = []
    for variant in dict.fromkeys(frame["variant"]):
        cells: list[str] = []
        for metric, source in zip(_METRICS, SOURCE[variant], strict=True):
            column = COLUMNS[metric]
            values = by_seed(frame, variant, metric).to_numpy(np.float64)
            missing = metric in DISTANCES and bool(np.isnan(values).all())
            cells.append("no generator" if missing and metric == "gfvd" else median_cell(values, column))
            cells.append(f"{column.factor * source:g}")
        saved = median_cell(by_seed(frame, variant, "saved"), COLUMNS["saved"])
        lines.append((variant.replace("without-", "without `") + "`" * (variant != FULL), *cells, saved))
    headings = [heading for metric in _METRICS for heading in (COLUMNS[metric].heading, "source")]
    return markdown_table(("", *headings, COLUMNS["saved"].heading), lines)


def claims(frame: pd.DataFrame) -> str:
    """The inequalities of Table 1, as measured."""
    return "\n".join(stated(claim, holds, frame) for claim, holds in _CLAIMS)


def write_ablation(out: Path, frame: pd.DataFrame, title: str, *notes: str) -> list[Path]:
    """Writes the CSV and the page.

    Args:
        out: the study's folder.
        frame: of `ablation_frame`.
        title: of the page.
        *notes: paragraphs on clips, seeds, networks and machine.
    """
    with whole_write(out / CSV_FILE) as scratch:
        frame.to_csv(scratch, index=False)
    page = write_page(
        out / PAGE_FILE,
        title,
        ablation_table(frame),
        f"{OVER_SEEDS} The source's tokens are of 1,024, and its distances (I3D, UCF101) compare with no others. "
        "*saved*: less error than a fixed length of as many tokens.",
        "The source's inequalities here, for the medians:",
        claims(frame),
        *notes,
    )
    return [page, out / CSV_FILE]
