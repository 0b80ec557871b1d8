"""Progress bars: percentage, rate and time left first, so that they fit 60 columns; lines where there is no bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

LOG_SECONDS = 30.0
"""Interval of the lines that replace the bar."""
SPEED_SECONDS = 600.0
"""The rate is an average over this time: a round may take a minute."""


def numbers(task: Task) -> str:
    """``" 45 %   31/s  0:01:23 left"``; without percentage and time where the total is unknown."""
    done = f"{task.percentage:3.0f} %" if task.total else f"{task.completed:,.0f} done"
    speed = task.finished_speed or task.speed
    rate = "  –/s" if not speed else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"
    if task.total is None:
        return f"{done} {rate:>8}"
    seconds = 0.0 if task.finished else task.time_remaining
    left = "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
    return f"{done} {rate:>8}  {left} left"


class _Numbers(ProgressColumn):
    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, min_width=28))

    def render(self, task: Task) -> Text:
        return Text(numbers(task))


class _Log(Progress):
    """Progress of a command whose output is a pipe, a file or a notebook without widgets."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, disable=True, **options)
        self._told = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """See `rich.progress.Progress.advance`."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now - self._told < LOG_SECONDS:
            return
        self._told = now
        task = self._tasks[task_id]
        self.console.print(f"{numbers(task)}  {task.description}  {task.fields['live']}", highlight=False)


def progress_bar(console: Console) -> Progress:
    """Progress of tasks with a ``live`` text field for current metrics."""
    columns = (_Numbers(), TextColumn("{task.description}"), TextColumn("{task.fields[live]}", table_column=Column()))
    # A notebook without widgets would show warnings instead of the bar.
    live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    kind = Progress if live else _Log
    return kind(*columns, console=console, speed_estimate_period=SPEED_SECONDS)


class Resumable(Protocol):
    """A training that saves itself when it is interrupted."""

    @property
    def step(self) -> int:
        """Steps done."""


@contextmanager
def told_when_interrupted(console: Console, trainer: Resumable, state: Path) -> Iterator[None]:
    """Prints how to continue if training inside ends with Ctrl-C, and lets that pass."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(
            f"interrupted after step {trainer.step}; saved {state}. Continue with --resume.",
            style="yellow",
            soft_wrap=True,
        )
        raise
