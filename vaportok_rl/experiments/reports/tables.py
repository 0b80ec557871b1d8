"""Tables and sentences of a comparison at equal tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from vaportok_rl.agents import Comparison
from vaportok_rl.agents.scoreboard import (
    HEADINGS,
    SCOREBOARD,
    Column,
    Intervals,
    percent,
    ranked,
    scoreboard_rows,
    spoken,
    with_interval,
)
from vaportok_rl.experiments.console import terminal_table
from vaportok_rl.runtime.markdown import markdown_table

READING = (
    "saved: MSE below that of a fixed length with as many tokens, in per cent. of best: share of what the best "
    "allocation saves. gap: share of the reward from best fixed (0) to oracle (100)."
)
_ALLOCATION: tuple[Column, ...] = (
    ("median tokens", "median_tokens", "{:g}".format),
    ("share at n_min %", "share_smallest", percent(0)),
    ("share at n_max %", "share_largest", percent(0)),
    ("ρ", "spearman_complexity", "{:+.2f}".format),
    ("ρ SC", "spearman_spatial", "{:+.2f}".format),
    ("ρ TC", "spearman_temporal", "{:+.2f}".format),
    ("percentile %", "proxy_percentile", percent(1)),
)


def scoreboard(comparison: Comparison, intervals: Intervals, width: int = 80) -> Table:
    """The table of the terminal, best policy first; `READING` explains its columns.

    Args:
        comparison: the policies.
        intervals: of ``saved`` at least.
        width: the terminal's columns.
    """
    return terminal_table("", HEADINGS, scoreboard_rows(comparison.results(), intervals), width)


def runs_table(runs: Mapping[str, Mapping[str, Mapping[str, Any]]], width: int = 80) -> Table:
    """The interquartile means over the runs of each algorithm, with 95 % bootstrap intervals over runs."""
    shown = [column for column in SCOREBOARD if column[1] in ("tokens", "saved", "saved_share", "reward")]
    rows = [
        [
            name,
            str(len(metrics["reward"]["values"])),
            *(
                with_interval(write, metrics[metric]["interquartile_mean"], metrics[metric]["interval"])
                for _, metric, write in shown
            ),
        ]
        for name, metrics in runs.items()
    ]
    headings = ["algorithm", "runs", *(heading for heading, _, _ in shown)]
    return terminal_table("interquartile mean over runs, 95 % intervals", headings, rows, width)


def report_tables(comparison: Comparison, intervals: Intervals) -> list[str]:
    """All metrics as Markdown tables, with explanations."""
    rows = ranked(comparison.results())
    quality = [("PSNR (dB)", "psnr", "{:.2f}".format), ("LPIPS", "lpips", "{:.3f}".format)]
    more = [column for column in quality if column[1] in rows[0][1]]
    terms = [
        (name.removeprefix("reward_"), name, "{:+.3f}".format) for name in rows[0][1] if name.startswith("reward_")
    ]

    def table(columns: Sequence[Column]) -> str:
        cells = (
            [
                spoken(name),
                *(with_interval(write, row[metric], intervals[name].get(metric)) for _, metric, write in columns),
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
