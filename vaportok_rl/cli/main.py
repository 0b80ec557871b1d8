"""Entry point: parses the sub-command, and turns the package's errors into one clear message."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from vaportok_rl.cli.evaluate import Evaluate
from vaportok_rl.cli.info import Info
from vaportok_rl.cli.pretrain import Pretrain
from vaportok_rl.cli.rollout import RolloutCommand
from vaportok_rl.cli.table import TableCommand
from vaportok_rl.cli.train import Train
from vaportok_rl.clips import UnreadableVideoError
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.runtime.whole_writes import is_unwritable, unwritable

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[RolloutCommand, tyro.conf.subcommand("rollout")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[TableCommand, tyro.conf.subcommand("table")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error itself: torch, too, has messages that begin with what it expected."""
    if not str(error).startswith("Expected"):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or Path(frames[-1].f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command.

    Args:
        arguments: what follows ``vaportok-rl``; the process's own by default.
    """
    command = tyro.cli(
        Command,
        prog="vaportok-rl",
        description="Adaptive video tokenization as a reinforcement-learning environment.",
        args=arguments,
    )
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
            command.run(console)
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            # What the package checks itself says what was expected, what came and what to do; a traceback would
            # bury it. Everything else is a bug and keeps its traceback.
            if is_unwritable(error):
                error = unwritable(getattr(error, "filename", None) or "the run folder", error)
            elif not (
                isinstance(error, UnreadableVideoError) or (str(error).startswith("Expected") and _is_ours(error))
            ):
                raise
            tell("error:", "bold red", error)
            sys.exit(2)
        except KeyboardInterrupt:
            errors.print("interrupted", style="yellow")
            sys.exit(130)
