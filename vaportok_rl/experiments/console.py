"""Where commands print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

# Wider than any line: what reads a pipe or a file wraps lines itself.
_PIPE_WIDTH = 1000


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints file names as they are (no markup, no emoji) and wraps lines in a terminal only."""
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and not console.is_jupyter:
        console.width = _PIPE_WIDTH
    return console


def tell_written(console: Console, folder: Path, files: Iterable[Path]) -> None:
    """Says what a run folder holds; the folder stays in one piece, to be copied."""
    console.print(f"written to {folder}:", highlight=False, soft_wrap=True)
    names = (file.name if file.parent == folder else str(file) for file in files)
    console.print(f"  {', '.join(names)}", highlight=False)
