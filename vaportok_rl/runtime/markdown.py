"""Markdown tables and pages: every report of this package is written by these two functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], names: int = 1) -> str:
    """A table.

    Args:
        headings: one a column.
        rows: cells, as many as headings.
        names: how many columns from the left hold names; those after them are aligned right, as numbers are.
    """
    lines = [headings, ["---"] * names + ["---:"] * (len(headings) - names), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_page(path: Path, title: str, *paragraphs: str) -> Path:
    """Writes a page of a title and paragraphs (or tables, or pictures) to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join((f"# {title}", *paragraphs)) + "\n", encoding="utf-8")
    return path
