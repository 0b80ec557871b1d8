"""Small HTML tables, which objects show of themselves in notebooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from html import escape

from vaportok_rl.runtime.markdown import markdown_table

TableParts = tuple[str, Sequence[str], Iterable[Sequence[object]]]
"""Title, headings and rows of a table; see `html_table`."""


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


class ShownAsTable(ABC):
    """Results that a notebook and a terminal show as a table, instead of all their tensors.

    A dataclass has to be made with ``repr=False``.
    """

    @abstractmethod
    def _shown(self) -> TableParts:
        """The table."""

    def _repr_html_(self) -> str:
        return html_table(*self._shown())

    def __repr__(self) -> str:
        title, headings, rows = self._shown()
        return f"{type(self).__name__}: {title}\n{markdown_table(headings, rows)}"
