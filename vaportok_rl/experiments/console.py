"""The console of all commands: paths print verbatim, lines wrap only in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

# Wider than any line, so that pipes and files get unwrapped lines.
_PIPE_WIDTH = 1000


def plain_console(*, stderr: bool = False) -> Console:
    """A console without markup and emoji, so that paths print verbatim; it wraps lines only in a terminal."""
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and not console.is_jupyter:
        console.width = _PIPE_WIDTH
    return console


def tell_written(console: Console, folder: Path, files: Iterable[Path]) -> None:
    """Prints the files of a run folder; the folder's name is not wrapped, so that it can be copied."""
    console.print(f"written to {folder}:", highlight=False, soft_wrap=True)
    names = (file.name if file.parent == folder else str(file) for file in files)
    console.print(f"  {', '.join(names)}", highlight=False)
