"""Small HTML tables, which objects show of themselves in notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with its names in the first column; all text is escaped.

    Args:
        title: above the table.
        headings: one a column.
        rows: cells, as many as headings.
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        sides = ("left", *("right" for _ in cells[1:]))
        shown = zip(sides, map(str, cells), strict=True)
        return (
            "<tr>"
            + "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for side, cell in shown)
            + "</tr>"
        )

    body = "".join(line("td", row) for row in rows)
    return f"<p>{escape(title)}</p><table><thead>{line('th', headings)}</thead><tbody>{body}</tbody></table>"
