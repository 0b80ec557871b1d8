"""The comparison of policies as a table for people."""

from __future__ import annotations

from rich.table import Table

from vaportok_rl.agents import Comparison

_COLUMNS = (("tokens", "{:.1f}"), ("mse", "{:.5f}"), ("psnr", "{:.2f}"), ("accuracy", "{:.3f}"))


def comparison_table(comparison: Comparison, title: str) -> Table:
    """One row a policy: tokens, MSE, PSNR, prior top-5, each unweighted reward term, reward, gap closed."""
    results = comparison.results()
    terms = [name for name in next(iter(results.values())) if name.startswith("reward_")]
    table = Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    for heading in ("tokens", "MSE", "PSNR", "top-5"):
        table.add_column(heading, justify="right")
    for name in terms:
        # The whole name would make the table wider than a terminal; five letters tell the terms apart.
        table.add_column(name.removeprefix("reward_")[:5] + ".", justify="right")
    for heading in ("reward", "gap"):
        table.add_column(heading, justify="right", style="bold")
    for name, row in sorted(results.items(), key=lambda entry: entry[1]["reward"]):
        cells = [template.format(row[key]) for key, template in _COLUMNS]
        cells += [f"{row[term]:+.2f}" for term in terms]
        table.add_row(name.replace("_", " "), *cells, f"{row['reward']:.4f}", f"{100 * row['gap_closed']:.0f} %")
    return table
