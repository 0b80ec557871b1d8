"""Entry point: imports the sub-command that was asked for, and turns the package's errors into one clear message."""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.text import Text

from vaportok_rl.cli.quick_help import stand_in
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.runtime.whole_writes import is_unwritable, unwritable
from vaportok_rl.version import __version__

# Each in the module of its name, which is imported when it is run: what trains takes seconds to import.
COMMANDS = {
    "train": "Train",
    "evaluate": "Evaluate",
    "rollout": "RolloutCommand",
    "pretrain": "Pretrain",
    "table": "TableCommand",
    "info": "Info",
}


def _summary(command: str) -> str:
    """First line of a command's docstring, read without importing it."""
    body = ast.parse(Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")).body
    found = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == COMMANDS[command])
    return (ast.get_docstring(found) or "").splitlines()[0]


def _overview(arguments: Sequence[str]) -> None:
    """Answers ``--help``, ``--version`` and whatever names no command; always exits."""
    parser = argparse.ArgumentParser(
        "vaportok-rl", description="Adaptive video tokenization as a reinforcement-learning environment."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", description="Each has a --help of its own.")
    for command in COMMANDS:
        commands.add_parser(command, help=_summary(command).replace("%", "%%"))
    if arguments and arguments[0] not in ("-h", "--help", "--version"):
        hint = did_you_mean(arguments[0], COMMANDS, "see vaportok-rl --help.")
        parser.error(f"Expected a command first ({', '.join(COMMANDS)}), got {arguments[0]!r}; {hint}")
    parser.parse_args(arguments)
    parser.error("Expected a command first, got none; see vaportok-rl --help.")


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error itself: torch, too, has messages that begin with what it expected."""
    if not str(error).startswith(("Expected", "Cannot read video")):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or Path(frames[-1].f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        arguments: what follows ``vaportok-rl``; the process's own by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or file that cannot hold a character shows a question mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        _overview(given)
    if arguments is None and {"-h", "--help"} & set(given):
        stand_in()
    console, errors = plain_console(), plain_console(stderr=True)

    def tell(kind: str, style: str, message: object) -> None:
        # A path is to be copied: it must not be broken over lines.
        errors.print(Text.assemble((kind, style), f" {message}"), soft_wrap=True)

    shown: set[str] = set()

    def show_warning(message: Warning | str, *_: object, **__: object) -> None:
        # The training and the held-out clips come from the same files: a broken one is named once.
        if str(message) not in shown:
            shown.add(str(message))
            tell("warning:", "yellow", message)

    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            command = getattr(importlib.import_module(f"vaportok_rl.cli.{given[0]}"), COMMANDS[given[0]])
            tyro.cli(command, prog=f"vaportok-rl {given[0]}", args=given[1:]).run(console)
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            # What the package checks itself says what was expected, what came and what to do; a traceback would
            # bury it. Everything else is a bug and keeps its traceback.
            if is_unwritable(error):
                error = unwritable(getattr(error, "filename", None) or "the run folder", error)
            elif not _is_ours(error):
                raise
            tell("error:", "bold red", error)
            sys.exit(2)
        except KeyboardInterrupt:
            errors.print("interrupted", style="yellow")
            sys.exit(130)
