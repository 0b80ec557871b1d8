"""The scoreboard of a comparison: its metrics, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from vaportok_rl.evaluation.intervals import Interval

Column = tuple[str, str, Callable[[float], str]]
"""Heading, metric, and format of its value."""
Intervals = Mapping[str, Mapping[str, Interval]]
"""By policy and metric."""


def percent(digits: int, sign: str = "") -> Callable[[float], str]:
    """Writes a share in per cent."""
    # Adding zero turns a rounded -0 into 0.
    return lambda share: f"{round(100 * share, digits) + 0.0:{sign}.{digits}f}"


SCOREBOARD: tuple[Column, ...] = (
    ("tokens", "tokens", "{:.1f}".format),
    ("MSE·10³", "mse", lambda mse: f"{1000 * mse:.2f}"),
    ("saved %", "saved", percent(1, "+")),
    ("of best %", "saved_share", percent(0)),
    ("top-5 %", "accuracy", percent(1)),
    ("reward", "reward", "{:.3f}".format),
    ("gap %", "gap_closed", percent(0)),
)
HEADINGS = ("policy", *(heading for heading, _, _ in SCOREBOARD))


def ranked(results: Mapping[str, Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    """Policies with their metrics, highest saving first."""
    return sorted(results.items(), key=lambda entry: -entry[1]["saved"])


def scoreboard_rows(results: Mapping[str, Mapping[str, float]], intervals: Intervals | None = None) -> list[list[str]]:
    """A row per policy, highest saving first.

    Args:
        results: metrics by policy, as `Comparison.results`.
        intervals: of ``saved`` at least; without them, no cell has one.
    """

    def cell(name: str, column: Column) -> str:
        _, metric, write = column
        interval = intervals[name].get(metric) if intervals and metric == "saved" else None
        return with_interval(write, results[name][metric], interval)

    return [[spoken(name), *(cell(name, column) for column in SCOREBOARD)] for name, _ in ranked(results)]


def spoken(name: str) -> str:
    """A policy's name without underscores."""
    return name.replace("_", " ")


def with_interval(write: Callable[[float], str], value: float, interval: Interval | None) -> str:
    """A value and, where it is known, its interval."""
    # A constant length has no rank correlation, and without a gap none is closed.
    cell = "–" if math.isnan(value) else write(value)
    if interval is None or any(map(math.isnan, interval)):
        return cell
    low, high = map(write, interval)
    return f"{cell} [{low}, {high}]"
