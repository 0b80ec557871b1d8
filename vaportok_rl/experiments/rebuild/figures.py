"""Numbers in the tables of a page, and those that changed by more than their intervals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TIMES = frozenset({"seconds", "decisions/s", "faster"})
"""Columns of times of one machine, which no two runs share."""

_NUMBER = r"[+\-−]?\d[\d,]*(?:\.\d+)?"
# A number with its unit, and its interval if it has one.
_FIGURE = re.compile(rf"({_NUMBER})(?:\s*[%×])?(?:\s*\[({_NUMBER})(?:\s*%)?,\s*({_NUMBER})(?:\s*%)?\])?")

Key = tuple[str, ...]
"""Heading or passage, row, column, and which of the cell's figures."""


@dataclass(frozen=True)
class Figure:
    """A number in a table.

    Attributes:
        text: as in the table, with its interval.
        value: the number.
        interval: its ends, if the table gives them.
    """

    text: str
    value: float
    interval: tuple[float, float] | None = None

    def beyond(self, other: Figure) -> bool:
        """Whether each lies outside the other's interval; False if neither has one."""
        pairs = ((self.value, other.interval), (other.value, self.interval))
        outside = [not low <= value <= high for value, ends in pairs if ends is not None for low, high in [ends]]
        return bool(outside) and all(outside)


def figures(page: str) -> dict[Key, Figure]:
    """The numbers in a page's tables, except `TIMES`.

    The leading columns that are not right-aligned name the row; if all are, the first column does.
    """
    found: dict[Key, Figure] = {}
    heading, lines = "", page.splitlines()
    for place, line in enumerate(lines):
        if title := re.match(r"#+ (.+)|<!-- begin: (.+) -->", line):
            heading = title[1] or title[2]
        if not re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", line) or not place:
            continue
        names = max(1, sum(not cell.rstrip().endswith(":") for cell in _cells(line)))
        columns = _cells(lines[place - 1])
        for row in _rows(lines[place + 1 :]):
            key = " ".join(row[:names])
            for column, cell in list(zip(columns, row, strict=False))[names:]:
                if column in TIMES:
                    continue
                for number, match in enumerate(_FIGURE.finditer(cell)):
                    value, low, high = match.groups()
                    ends = None if low is None else (_float(low), _float(high))
                    whole: Key = (heading, f"{columns[0]} {key}".strip(), column, str(number) if number else "")
                    # Rows of the same name are numbered.
                    while whole in found:
                        whole = (*whole, "again")
                    found[whole] = Figure(match[0], _float(value), ends)
    return found


def changes(before: str, after: str) -> tuple[int, int, list[str]]:
    """Compares the numbers of two versions of a page.

    Returns:
        How many numbers the new version has; how many of them are new or differ; and a line for each that changed by
        more than the intervals.
    """
    then, now = figures(before), figures(after)
    differ = [key for key, figure in now.items() if key not in then or then[key].text != figure.text]
    beyond = [
        f"{' · '.join(part for part in key if part)}: {then[key].text} → {now[key].text}"
        for key in differ
        if key in then and now[key].beyond(then[key])
    ]
    return len(now), len(differ), beyond


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def _rows(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield _cells(line)


def _float(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))
