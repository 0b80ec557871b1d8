"""Entry point: imports the chosen sub-command, and prints the package's errors as one clear message."""

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
from typing import Any

import tyro
from rich.text import Text

from vaportok_rl.cli.quick_help import stand_in
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.runtime.whole_writes import is_unwritable, unwritable
from vaportok_rl.version import __version__

# Each is in the module of its name, or before the dot, imported when it runs: training modules take seconds to import.
COMMANDS = {
    "train": "Train",
    "evaluate": "Evaluate",
    "rollout": "RolloutCommand",
    "pretrain": "Pretrain",
    "table": "TableCommand",
    "generator": "GeneratorCommand",
    "generate": "Generate",
    "detect": "generate.Detect",
    "distance": "Distance",
    "sweep": "Sweep",
    "ablate-rewards": "sweep.AblateRewards",
    "sweep-weights": "sweep.SweepWeights",
    "explore": "sharing.explore.Explore",
    "hub": "sharing.hub.HubCommand",
    "benchmark": "benchmark.command.Benchmark",
    "info": "Info",
}


def _place(command: str) -> tuple[str, str]:
    """Module and class of a command."""
    module, _, name = COMMANDS[command].rpartition(".")
    return module or command, name


def command_class(command: str) -> Any:
    """The class of a command, imported."""
    module, name = _place(command)
    return getattr(importlib.import_module(f"vaportok_rl.cli.{module}"), name)


def _summary(command: str) -> str:
    """First line of a command's docstring, read without importing it."""
    module, name = _place(command)
    body = ast.parse((Path(__file__).parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
    found = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    return (ast.get_docstring(found) or "").splitlines()[0]


def _overview(arguments: Sequence[str]) -> None:
    """Answers ``--help``, ``--version`` and unknown commands; always exits."""
    parser = argparse.ArgumentParser(
        "vaportok-rl", description="Adaptive video tokenization as a reinforcement-learning environment."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", description="Each has its own --help.")
    for command in COMMANDS:
        commands.add_parser(command, help=_summary(command).replace("%", "%%"))
    if arguments and arguments[0] not in ("-h", "--help", "--version"):
        hint = did_you_mean(arguments[0], COMMANDS, "see vaportok-rl --help.")
        parser.error(f"Expected a command first ({', '.join(COMMANDS)}), got {arguments[0]!r}; {hint}")
    parser.parse_args(arguments)
    parser.error("Expected a command first, got none; see vaportok-rl --help.")


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error itself: torch's messages, too, may begin with "Expected"."""
    if not str(error).startswith(("Expected", "Cannot read video")):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or Path(frames[-1].f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        arguments: those after ``vaportok-rl``; the process's own by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal or file cannot encode becomes a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        _overview(given)
    if arguments is None and {"-h", "--help"} & set(given):
        stand_in()
    console, errors = plain_console(), plain_console(stderr=True)

    def tell(kind: str, style: str, message: object) -> None:
        # Paths must stay on one line, to be copied.
        errors.print(Text.assemble((kind, style), f" {message}"), soft_wrap=True)

    shown: set[str] = set()

    def show_warning(message: Warning | str, *_: object, **__: object) -> None:
        # Training and held-out clips come from the same files: a damaged one is named once.
        if str(message) not in shown:
            shown.add(str(message))
            tell("warning:", "yellow", message)

    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        # tqdm's, which comes with the hub's library, about a notebook without widgets: our progress needs none.
        warnings.filterwarnings("ignore", "IProgress not found")
        try:
            command = command_class(given[0])
            options, defaults = given[1:], {}
            if hasattr(command, "read_first"):
                defaults["default"], options = command.read_first(options)
            tyro.cli(command, prog=f"vaportok-rl {given[0]}", args=options, **defaults).run(console)
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            # The package's own errors say what was expected, what came and what to do. All others are bugs and keep
            # their traceback.
            if is_unwritable(error):
                error = unwritable(getattr(error, "filename", None) or "the run folder", error)
            elif not _is_ours(error):
                raise
            tell("error:", "bold red", error)
            sys.exit(2)
        except KeyboardInterrupt:
            errors.print("interrupted", style="yellow")
            sys.exit(130)
