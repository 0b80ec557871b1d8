"""Where commands print: what they print names the user's files, in which brackets and colons mean nothing else."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console that reads neither markup nor emoji in what it prints."""
    return Console(stderr=stderr, markup=False, emoji=False)
