"""The comparison of policies as a table for people."""

from __future__ import annotations

import math

from rich.table import Table

from vaportok_rl.agents import Comparison

_QUALITY = (
    ("tokens", "tokens", "{:.1f}"),
    ("MSE", "mse", "{:.5f}"),
    ("PSNR", "psnr", "{:.2f}"),
    ("top-5", "accuracy", "{:.3f}"),
    ("ρ", "spearman_complexity", "{:+.2f}"),
    ("reward", "reward", "{:.4f}"),
)


def comparison_tables(comparison: Comparison, title: str) -> tuple[Table, Table]:
    """Two tables that fit 80 columns, one row a policy.

    The first holds tokens, MSE, PSNR, prior top-5, rank correlation with complexity, path reward and gap closed; the
    second the unweighted reward terms.
    """
    results = comparison.results()
    ranked = sorted(results.items(), key=lambda entry: entry[1]["reward"])
    quality = Table(title=title, title_justify="left")
    quality.add_column("policy", no_wrap=True)
    for heading, _, _ in _QUALITY:
        quality.add_column(heading, justify="right")
    quality.add_column("gap closed", justify="right", style="bold")
    terms = [name for name in ranked[0][1] if name.startswith("reward_")]
    parts = Table(title="reward terms, unweighted path means", title_justify="left")
    parts.add_column("policy", no_wrap=True)
    for name in terms:
        parts.add_column(name.removeprefix("reward_"), justify="right", overflow="fold")
    for name, row in ranked:
        label = name.replace("_", " ")
        # A constant length has no rank correlation.
        cells = ["–" if math.isnan(row[key]) else template.format(row[key]) for _, key, template in _QUALITY]
        quality.add_row(label, *cells, f"{100 * row['gap_closed']:.1f} %")
        parts.add_row(label, *(f"{row[term]:+.3f}" for term in terms))
    return quality, parts
