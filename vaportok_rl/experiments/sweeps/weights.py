"""The source's Figure 3: the weights of reconstruction and generation raised together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.experiments.sweeps.columns import COLUMNS, Column
from vaportok_rl.experiments.sweeps.medians import OVER_SEEDS, by_seed, median_cell, stated
from vaportok_rl.experiments.sweeps.plan import DISTANCES
from vaportok_rl.runtime.markdown import markdown_table, write_page
from vaportok_rl.runtime.whole_writes import whole_write

CSV_FILE, PAGE_FILE, PICTURE_FILE = "sweep-weights.csv", "sweep-weights.md", "images/sweep-weights.png"
RAISED = ("reconstruction", "generation")
_SHOWN = ("generation", "reconstruction", "efficiency", "diversity", "penalty")  # as in Figure 3, then the fifth


def weight_variants(weights: Sequence[float], reward: VaporReward) -> dict[str, dict[str, float]]:
    """A variant for each weight of both terms, named by all five weights in the source's order.

    Args:
        weights: of both terms, rising.
        reward: of the other terms.

    Raises:
        ValueError: there are fewer than two weights, or they do not rise.
    """
    if len(weights) < 2 or list(weights) != sorted(set(weights)):
        raise ValueError(f"Expected at least two rising weights, got {' '.join(map(str, weights))}; sort them.")
    others = ":".join(f"{reward.weights_now()[term]:g}" for term in ("efficiency", "penalty", "diversity"))
    return {f"{others}:{one:g}:{one:g}": {f"reward.weights.{term}": one for term in RAISED} for one in weights}


def terms_figure(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Each raw term on held-out clips over training: the median of the seeds per weight, and their range.

    Args:
        runs: ``row`` and ``points`` of each run; see `Worker.results`.
    """
    points = pd.DataFrame([{"variant": run["row"]["variant"], **point} for run in runs for point in run["points"]])
    figure = Figure(figsize=(11, 6.2))
    axes = figure.subplots(2, 3)
    for axis, term in zip(axes.flat, _SHOWN, strict=False):
        for variant, own in points.groupby("variant", sort=False):
            curve = own.groupby("decisions")[f"reward_{term}"].agg(["median", "min", "max"])
            (line,) = axis.plot(curve.index, curve["median"], lw=1.4, label=str(variant))
            axis.fill_between(curve.index, curve["min"], curve["max"], color=line.get_color(), alpha=0.15, lw=0)
        axis.set_title(f"{term} reward", fontsize=10)
        axis.set_xlabel("decisions")
        axis.set_ylabel("unweighted reward per path")
    lines, names = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].axis("off")
    order = "weights of efficiency : penalty : diversity :\nreconstruction : generation"
    axes.flat[-1].legend(lines, names, title=order, loc="center", frameon=False)
    figure.suptitle("Unweighted reward terms over training, held-out clips: median and range of the seeds", fontsize=11)
    figure.tight_layout()
    return figure


def weights_table(frame: pd.DataFrame) -> str:
    """Final values per weight: medians with intervals."""
    columns = {f"reward_{term}": Column(term, ".4f") for term in _SHOWN}
    columns |= {name: COLUMNS[name] for name in ("tokens", *DISTANCES) if name in frame}
    rows = []
    for variant in dict.fromkeys(frame["variant"]):
        cells = (median_cell(by_seed(frame, variant, name), column) for name, column in columns.items())
        rows.append((variant, *cells))
    return markdown_table(("weights", *(column.heading for column in columns.values())), rows)


def claims(frame: pd.DataFrame) -> str:
    """Whether each step raises both raw terms and lowers efficiency, as measured."""
    variants = list(dict.fromkeys(frame["variant"]))
    lines = []
    for before, after in itertools.pairwise(variants):
        for term, rises in (*((term, True) for term in RAISED), ("efficiency", False)):

            def holds(
                value: Callable[[str, str], float],
                before: str = before,
                after: str = after,
                name: str = f"reward_{term}",
                sign: int = 1 if rises else -1,
            ) -> bool:
                return sign * (value(after, name) - value(before, name)) > 0

            claim = f"{before} → {after}: {'raises' if rises else 'lowers'} `{term}`"
            lines.append(stated(claim, holds, frame))
    return "\n".join(lines)


def write_weights(out: Path, runs: Sequence[Mapping[str, Any]], *notes: str) -> list[Path]:
    """Writes the CSV, the page and the picture of a finished sweep.

    Args:
        out: the study's folder.
        runs: see `Worker.results`.
        *notes: paragraphs on clips, seeds and machine.
    """
    frame = pd.DataFrame([run["row"] for run in runs])
    with whole_write(out / CSV_FILE) as scratch:
        frame.to_csv(scratch, index=False)
    (out / PICTURE_FILE).parent.mkdir(exist_ok=True)
    picture = save_figure(terms_figure(runs), out / PICTURE_FILE)
    page = write_page(
        out / PAGE_FILE,
        "The weights of reconstruction and generation raised together",
        weights_table(frame),
        f"Unweighted terms at the end of training, held-out clips. {OVER_SEEDS}",
        f"![Unweighted reward terms over training]({PICTURE_FILE})",
        "The source's statement, step by step, for the medians:",
        claims(frame),
        *notes,
    )
    return [page, out / CSV_FILE, picture]
