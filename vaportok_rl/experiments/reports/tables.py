"""Tables and sentences of a comparison at equal tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from vaportok_rl.agents import Comparison
from vaportok_rl.evaluation.intervals import Interval
from vaportok_rl.experiments.console import terminal_table
from vaportok_rl.runtime.markdown import markdown_table

Column = tuple[str, str, Callable[[float], str]]
"""Heading, metric, and format of its value."""
Intervals = Mapping[str, Mapping[str, Interval]]
"""By policy and metric."""


def _percent(digits: int, sign: str = "") -> Callable[[float], str]:
    # Adding zero turns a rounded -0 into 0.
    return lambda share: f"{round(100 * share, digits) + 0.0:{sign}.{digits}f}"


SCOREBOARD: tuple[Column, ...] = (
    ("tokens", "tokens", "{:.1f}".format),
    ("MSE·10³", "mse", lambda mse: f"{1000 * mse:.2f}"),
    ("saved %", "saved", _percent(1, "+")),
    ("of best %", "saved_share", _percent(0)),
    ("top-5 %", "accuracy", _percent(1)),
    ("reward", "reward", "{:.3f}".format),
    ("gap %", "gap_closed", _percent(0)),
)
READING = (
    "saved: MSE below that of a fixed length with as many tokens, in per cent. of best: share of what the best "
    "allocation saves. gap: share of the reward from best fixed (0) to oracle (100)."
)
_ALLOCATION: tuple[Column, ...] = (
    ("median tokens", "median_tokens", "{:g}".format),
    ("share at n_min %", "share_smallest", _percent(0)),
    ("share at n_max %", "share_largest", _percent(0)),
    ("ρ", "spearman_complexity", "{:+.2f}".format),
    ("ρ SC", "spearman_spatial", "{:+.2f}".format),
    ("ρ TC", "spearman_temporal", "{:+.2f}".format),
    ("percentile %", "proxy_percentile", _percent(1)),
)


def scoreboard(comparison: Comparison, intervals: Intervals, width: int = 80) -> Table:
    """The table of the terminal, best policy first; `READING` explains its columns.

    Args:
        comparison: the policies.
        intervals: of ``saved`` at least.
        width: the terminal's columns.
    """
    rows = [
        [
            spoken(name),
            *(
                _with_interval(write, row[metric], intervals[name].get(metric) if metric == "saved" else None)
                for _, metric, write in SCOREBOARD
            ),
        ]
        for name, row in _ranked(comparison)
    ]
    return terminal_table("", ["policy", *(heading for heading, _, _ in SCOREBOARD)], rows, width)


def runs_table(runs: Mapping[str, Mapping[str, Mapping[str, Any]]], width: int = 80) -> Table:
    """The interquartile means over the runs of each algorithm, with 95 % bootstrap intervals over runs."""
    shown = [column for column in SCOREBOARD if column[1] in ("tokens", "saved", "saved_share", "reward")]
    rows = [
        [
            name,
            str(len(metrics["reward"]["values"])),
            *(
                _with_interval(write, metrics[metric]["interquartile_mean"], metrics[metric]["interval"])
                for _, metric, write in shown
            ),
        ]
        for name, metrics in runs.items()
    ]
    headings = ["algorithm", "runs", *(heading for heading, _, _ in shown)]
    return terminal_table("interquartile mean over runs, 95 % intervals", headings, rows, width)


def report_tables(comparison: Comparison, intervals: Intervals) -> list[str]:
    """All metrics as Markdown tables, with explanations."""
    rows = _ranked(comparison)
    quality = [("PSNR (dB)", "psnr", "{:.2f}".format), ("LPIPS", "lpips", "{:.3f}".format)]
    more = [column for column in quality if column[1] in rows[0][1]]
    terms = [
        (name.removeprefix("reward_"), name, "{:+.3f}".format) for name in rows[0][1] if name.startswith("reward_")
    ]

    def table(columns: Sequence[Column]) -> str:
        cells = (
            [
                spoken(name),
                *(_with_interval(write, row[metric], intervals[name].get(metric)) for _, metric, write in columns),
            ]
            for name, row in rows
        )
        return markdown_table(["policy", *(heading for heading, _, _ in columns)], cells)

    return [
        table(SCOREBOARD),
        f"{READING} In brackets: 95 % bootstrap intervals over paths.",
        table([*more, *_ALLOCATION]),
        "n_min and n_max are the shortest and the longest length allowed; ρ: Spearman correlation of the length with "
        "the complexity score, SC and TC; percentile: (R − R_worst) / (R_oracle − R_worst).",
        table(terms),
        "Reward terms, unweighted means.",
    ]


def verdict(comparison: Comparison, intervals: Intervals, name: str = "trained") -> str:
    """One sentence: whether a policy beats a fixed length at equal tokens."""
    row = comparison.results()[name]
    saved, (low, high) = 100 * row["saved"], (100 * end for end in intervals[name]["saved"])
    more = "less" if saved >= 0 else "more"
    interval = "" if math.isnan(low) else f" (95 % interval of what it saves: {low:.1f} to {high:.1f} %)"
    if math.isnan(low):
        judged = "one path is too few to say whether it beats a fixed length"
    elif low > 0:
        judged = "it beats a fixed length"
    elif high < 0:
        judged = "it is worse than a fixed length"
    else:
        judged = "it is not shown to beat a fixed length"
    return (
        f"With {row['tokens']:.1f} tokens per clip, the {spoken(name)} policy leaves {abs(saved):.1f} % {more} error "
        f"than a fixed length with as many{interval}: {judged}."
    )


def cautions(comparison: Comparison, explained: float | None, name: str = "trained") -> list[str]:
    """Warnings about a trained policy's metrics.

    Args:
        comparison: with ``random`` among the policies.
        explained: explained variance of the median clip with all tokens, if known.
        name: the trained policy.
    """
    results = comparison.results()
    found = []
    ahead = [
        metric
        for metric in ("saved", "reward")
        if "random" in results and results["random"][metric] > results[name][metric]
    ]
    if ahead:
        found.append(
            f"Random lengths do better than the {spoken(name)} policy ({' and '.join(ahead)}); train for more "
            "decisions, or look at the reward."
        )
    if explained is not None and explained < 0.1:
        found.append(
            f"With all tokens the world explains {100 * explained:.0f} % of the variance of the median clip; lengths "
            "mean little there. Pretrain a tokenizer on such clips."
        )
    return found


def spoken(name: str) -> str:
    """A policy's name without underscores."""
    return name.replace("_", " ")


def _ranked(comparison: Comparison) -> list[tuple[str, dict[str, float]]]:
    return sorted(comparison.results().items(), key=lambda entry: -entry[1]["saved"])


def _with_interval(write: Callable[[float], str], value: float, interval: Interval | None) -> str:
    # A constant length has no rank correlation, and without a gap none is closed.
    cell = "–" if math.isnan(value) else write(value)
    if interval is None or any(map(math.isnan, interval)):
        return cell
    low, high = map(write, interval)
    return f"{cell} [{low}, {high}]"
