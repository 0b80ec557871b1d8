"""How the tables of a sweep show its metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A metric in a table.

    Attributes:
        heading: of the column.
        style: format of its numbers.
        factor: by which they are multiplied.
    """

    heading: str
    style: str
    factor: float = 1.0


COLUMNS = {
    "tokens": Column("tokens", ".1f"),
    "mse": Column("MSE·10³", ".2f", 1000.0),
    "psnr": Column("PSNR", ".2f"),
    "accuracy": Column("top-5 %", ".1f", 100.0),
    "rfvd": Column("rFVD", ".4g"),
    "gfvd": Column("gFVD", ".4g"),
    "saved": Column("saved %", "+.1f", 100.0),
    "reward": Column("reward", ".3f"),
}
"""By the metric's name in the CSV."""
