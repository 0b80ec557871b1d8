"""Markdown tables, pages and passages of pages: every report of this package is written by these functions."""

from __future__ import annotations

import re
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


def passage_names(text: str) -> list[str]:
    """Names of the passages of a page that commands write: ``<!-- begin: NAME -->`` … ``<!-- end: NAME -->``."""
    return re.findall(r"^<!-- begin: (\S+) -->$", text, re.MULTILINE)


def replace_passage(text: str, name: str, content: str) -> str:
    """A page with another passage between its two marks.

    Raises:
        ValueError: the page does not have the two marks once each.
    """
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"Expected the marks {begin.strip()} and {end} once each, in this order; put them on the page."
        )
    before, rest = text.split(begin)
    return f"{before}{begin}{content.rstrip()}\n{end}{rest.split(end)[1]}"


def first_table(text: str) -> str:
    """The first table of a page.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    if found is None:
        raise ValueError("Expected a page with a table, got none; make the page again.")
    return found[0].rstrip()
