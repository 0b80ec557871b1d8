"""The comparison of policies as tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from vaportok_rl.agents import Comparison
from vaportok_rl.evaluation.intervals import Interval

Column = tuple[str, str, Callable[[float], str]]
"""Heading, figure, and how its value is written."""

_QUALITY: tuple[Column, ...] = (
    ("tokens", "tokens", "{:.1f}".format),
    ("MSE", "mse", "{:.5f}".format),
    ("PSNR", "psnr", "{:.2f}".format),
    ("LPIPS", "lpips", "{:.3f}".format),
    ("top-5", "accuracy", "{:.3f}".format),
    ("reward", "reward", "{:.4f}".format),
    ("gap closed", "gap_closed", "{:.1%}".format),
)
_ALLOCATION: tuple[Column, ...] = (
    ("median", "median_tokens", "{:g}".format),
    ("least", "share_smallest", "{:.0%}".format),
    ("most", "share_largest", "{:.0%}".format),
    ("ρ", "spearman_complexity", "{:+.2f}".format),
    ("ρ SC", "spearman_spatial", "{:+.2f}".format),
    ("ρ TC", "spearman_temporal", "{:+.2f}".format),
    ("lost", "matched_regret", lambda mse: f"{1000 * mse:.2f}"),
    ("won", "matched_gain", lambda mse: f"{1000 * mse:+.2f}"),
    ("proxy", "proxy_percentile", "{:.1%}".format),
)


def comparison_tables(comparison: Comparison, title: str) -> tuple[Table, Table, Table]:
    """One table in three parts that fit 80 columns, the policies as rows in the same order.

    The first part holds tokens, MSE, PSNR, LPIPS where measured, prior top-5, path reward and gap closed. The second
    says how the tokens are spread: median length, share of decisions at the shortest and at the longest length, rank
    correlations with the complexity score, SC and TC, thousandths of MSE lost against the best allocation and won over
    a fixed length of the same mean tokens, and proxy-reward percentile. The third holds the unweighted reward terms.
    """
    rows = _ranked(comparison)
    terms = tuple((name.removeprefix("reward_"), name, "{:+.3f}".format) for name in _terms(rows))
    return (
        _table(title, _present(_QUALITY, rows), rows),
        _table("allocation: shares of the least and the most tokens; MSE · 1000 lost and won", _ALLOCATION, rows),
        _table("reward terms, unweighted path means", terms, rows, fold_headings=True),
    )


def runs_table(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """The interquartile means over the runs of each algorithm, with 95 % bootstrap intervals over runs."""
    table = Table(
        title="interquartile mean over runs, 95 % intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("algorithm", no_wrap=True)
    table.add_column("runs", justify="right")
    for heading in ("tokens", "reward", "gap closed"):
        table.add_column(heading, justify="right")
    for name, figures in runs.items():
        cells = [
            _with_interval(write, figures[figure]["interquartile_mean"], figures[figure]["interval"])
            for figure, write in (
                ("tokens", "{:.1f}".format),
                ("reward", "{:.4f}".format),
                ("gap_closed", "{:.1%}".format),
            )
        ]
        table.add_row(name, str(len(figures["reward"]["values"])), *cells)
    return table


def markdown_table(comparison: Comparison, intervals: Mapping[str, Mapping[str, Interval]], title: str) -> str:
    """All figures in one Markdown table, with 95 % intervals where there are any."""
    rows = _ranked(comparison)
    terms = tuple((name.removeprefix("reward_"), name, "{:+.3f}".format) for name in _terms(rows))
    columns = (*_present(_QUALITY, rows), *_ALLOCATION, *terms)
    lines = [
        title,
        "",
        f"| policy | {' | '.join(heading for heading, _, _ in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in rows:
        cells = [_with_interval(write, row[figure], intervals[name].get(figure)) for _, figure, write in columns]
        lines.append(f"| {_label(name)} | {' | '.join(cells)} |")
    lines += [
        "",
        "In brackets: 95 % bootstrap intervals over paths. *least*, *most*: share of decisions at the shortest and "
        "the longest length allowed. *ρ*: Spearman correlation of the length with the complexity score, SC and TC. "
        "*lost*: MSE · 1000 beyond the least that as many tokens could leave, spread over these clips at will; "
        "*won*: MSE · 1000 below fixed lengths of the same mean. *proxy*: (R − R_worst) / (R_oracle − R_worst).",
    ]
    return "\n".join(lines) + "\n"


def _ranked(comparison: Comparison) -> list[tuple[str, dict[str, float]]]:
    return sorted(comparison.results().items(), key=lambda entry: entry[1]["reward"])


def _terms(rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    return [name for name in rows[0][1] if name.startswith("reward_")]


def _present(columns: Sequence[Column], rows: Sequence[tuple[str, Mapping[str, float]]]) -> tuple[Column, ...]:
    return tuple(column for column in columns if column[1] in rows[0][1])


def _label(name: str) -> str:
    return name.replace("_", " ")


def _cell(write: Callable[[float], str], value: float) -> str:
    # A constant length has no rank correlation, and no gap is closed where there is none.
    return "–" if math.isnan(value) else write(value)


def _with_interval(write: Callable[[float], str], value: float, interval: Interval | None) -> str:
    cell = _cell(write, value)
    if interval is None or any(map(math.isnan, interval)):
        return cell
    low, high = (_cell(write, end) for end in interval)
    return f"{cell} [{low}, {high}]"


def _table(
    title: str, columns: Sequence[Column], rows: Sequence[tuple[str, Mapping[str, float]]], fold_headings: bool = False
) -> Table:
    """Long policy names are folded where the terminal is narrow, or else long headings; numbers never."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("policy", overflow="fold", no_wrap=fold_headings)
    for heading, figure, _ in columns:
        style = "bold" if figure == "gap_closed" else ""
        table.add_column(heading, justify="right", overflow="fold", no_wrap=not fold_headings, style=style)
    for name, row in rows:
        table.add_row(_label(name), *(_cell(write, row[figure]) for _, figure, write in columns))
    return table
