"""The console of all commands: paths print verbatim, lines wrap and tables are drawn only in a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # every command imports this module before it answers --help
    from vaportok_rl.evaluation import RateDistortion

# Wider than any line, so that pipes and files get unwrapped lines.
_PIPE_WIDTH = 1000


def plain_console(*, stderr: bool = False) -> Console:
    """A console without markup and emoji, so that paths print verbatim; it wraps lines only in a terminal."""
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and not console.is_jupyter:
        console.width = _PIPE_WIDTH
    return console


def tell_written(console: Console, folder: Path, files: Iterable[Path]) -> None:
    """Prints the files and folders of a run folder; the folder's name is not wrapped, so that it can be copied."""
    console.print(f"written to {folder}:", highlight=False, soft_wrap=True)
    names = ((file.name if file.parent == folder else str(file)) + "/" * file.is_dir() for file in files)
    console.print(f"  {', '.join(names)}", highlight=False)


def show_rate_distortion(console: Console, figures: RateDistortion) -> None:
    """Prints a table of quality against length: Markdown in a pipe."""
    headings, *rows = figures.table()
    shown = terminal_table("", headings, rows, console.width) if console.is_terminal else figures.markdown()
    console.print(shown, highlight=False)


def terminal_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table that fits a terminal: long names are folded between words, and if need be headings and intervals too."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(headings[0], overflow="fold", min_width=6)
    columns = [list(cells) for cells in zip(headings, *rows, strict=True)]
    # As little as makes it fit: nothing, the headings, before intervals, everywhere.
    for rows_at, headings_at in (("", ""), ("", " "), (" [", " "), (" ", " ")):
        numbers = [
            [_broken(heading, headings_at), *(_broken(cell, rows_at) for cell in cells)]
            for heading, *cells in columns[1:]
        ]
        room = width - sum(1 + max(len(line) for cell in cells for line in cell.split("\n")) for cells in numbers)
        if room >= min(10, max(map(len, columns[0]))):
            break
    columns = [[_folded(name, room) for name in columns[0]], *numbers]
    for heading, *_ in columns[1:]:
        table.add_column(heading, justify="right", style="bold" if heading.startswith("saved") else "", no_wrap=True)
    for row in zip(*(cells[1:] for cells in columns), strict=True):
        table.add_row(*row)
    return table


def _broken(text: str, at: str) -> str:
    return text.replace(at, "\n" + at.lstrip()) if at else text


def _folded(name: str, room: int) -> str:
    """A name in lines of at most ``room`` characters where its words allow it: ``threshold:`` ``0.0599``."""
    lines = [""]
    for word in re.findall(r"[^-: ]+[-: ]*|[-: ]+", name):
        if lines[-1] and len(lines[-1] + word) > room:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)
