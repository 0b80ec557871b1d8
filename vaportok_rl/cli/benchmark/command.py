"""``vaportok-rl benchmark``: runs methods on the benchmark's tasks, checks submissions, writes the leaderboard."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.runtime.declared import AT_LEAST_1, check_fields

ALL = "all"
_FOLDER = Path("leaderboard")


def parse_seeds(text: str) -> list[int]:
    """Seeds from text such as ``0-9`` or ``3`` or ``0,2,5-7``.

    Raises:
        ValueError: it is of another form, or a range is empty.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        some = [] if found is None else range(int(found[1]), int(found[2] or found[1]) + 1)
        if not some:
            raise ValueError(f"Expected seeds such as 0-9 or 0,3,5, got {text!r}; correct {part!r}.")
        seeds += some
    return list(dict.fromkeys(seeds))


@dataclass(frozen=True)
class Tasks:
    """List the tasks and the methods."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.benchmark.methods.registry import METHODS
        from vaportok_rl.benchmark.tasks import TASKS

        for title, rows in (
            ("tasks", [(task.name, task.asks) for task in TASKS.values()]),
            ("methods", [(method.name, method.does) for method in METHODS.values()]),
        ):
            table = Table("name", "what it is", title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)


@dataclass(frozen=True)
class Run:
    """Train a method with several seeds, measure it once on the test scenes, and keep the results.

    Results that are there already are not repeated, so an interrupted command continues. After a change of the method,
    delete its `results.csv`.
    """

    method: Annotated[str, tyro.conf.Positional]
    """A method (see `benchmark tasks`), or a folder with a `method.py`; `all` for every method."""
    task: tuple[str, ...] = (ALL,)
    """Tasks; all that the method is made for by default. `all` leaves methods out that are made for none of them."""
    seeds: str = "0"
    """Seeds, such as `0-9`."""
    out: Path | None = None
    """Folder of the results (for `all`, a folder of such folders); `leaderboard/METHOD`, or the method's own folder."""
    decisions: Annotated[int | None, AT_LEAST_1] = None
    """Decisions of training; the task's by default, which is what a submission must use."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.benchmark.arena import task_named
        from vaportok_rl.benchmark.methods.registry import METHODS, open_method
        from vaportok_rl.benchmark.running import run_seeds
        from vaportok_rl.benchmark.submissions import README_FILE, describe
        from vaportok_rl.benchmark.tasks import TASKS
        from vaportok_rl.runtime.whole_writes import whole_write, writable_folder

        check_fields(self)
        seeds = parse_seeds(self.seeds)
        asked = TASKS.values() if self.task == (ALL,) else [task_named(task) for task in self.task]
        for name in METHODS if self.method == ALL else (self.method,):
            method = open_method(name)
            chosen = [task for task in asked if task.name in method.tasks]
            if len(chosen) < len(asked) and self.task != (ALL,) and self.method != ALL:
                raise ValueError(
                    f"Expected tasks that {method.name} is made for ({', '.join(method.tasks)}), got "
                    f"{' '.join(self.task)}; choose among them."
                )
            if not chosen:
                continue
            own = Path(name).expanduser()
            folder = (_FOLDER / method.name if name in METHODS else own) if self.out is None else self.out
            if self.out is not None and self.method == ALL:
                folder = self.out / method.name
            writable_folder(folder)
            with progress_bar(console) as progress:
                bar = progress.add_task(method.name, total=len(chosen) * len(seeds), live="")
                for task in chosen:
                    progress.update(bar, description=f"{method.name} on {task.name}")

                    def told(seed: int, score: float, name: str = method.name, task: str = task.name) -> None:
                        console.print(f"{name} on {task}, seed {seed}: score {score:+.3f}", highlight=False)

                    held = run_seeds(method, task, seeds, folder, told, self.decisions)
                    if held:
                        console.print(f"{method.name} on {task.name}: {held} seeds are there already", highlight=False)
                    progress.advance(bar, len(seeds))
            readme = folder / README_FILE
            if name in METHODS and not readme.is_file():
                with whole_write(readme) as scratch:
                    scratch.write_text(describe(method), encoding="utf-8")
            tell_written(console, folder, sorted(folder.glob("[!.]*")))


@dataclass(frozen=True)
class Template:
    """Begin a submission: a folder with a method that learns a little, and a README to fill in."""

    folder: Annotated[Path, tyro.conf.Positional]
    """New folder, such as leaderboard/my-method."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.benchmark.submissions import write_template

        tell_written(console, self.folder, write_template(self.folder))
        command = shlex.join(["vaportok-rl", "benchmark", "run", str(self.folder), "--seeds", "0-9"])
        console.print(f"next: {command}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Check:
    """Check a submission: its files, its seeds, and every score from the lengths in its results."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The submission."""

    def run(self, console: Console) -> None:
        """Runs the command.

        Raises:
            ValueError: something is wrong with it.
        """
        from vaportok_rl.benchmark.submissions import problems

        found = list(problems(self.folder))
        if found:
            listed = "\n  ".join(found)
            faults = "a fault" if len(found) == 1 else f"{len(found)} faults"
            raise ValueError(f"Expected a submission that can be merged, got {faults}:\n  {listed}")
        console.print(f"{self.folder}: every score follows from its lengths; it can be merged", highlight=False)


@dataclass(frozen=True)
class Report:
    """Write the leaderboard, and two views of it: pages and plots of all methods' folders."""

    folder: Path = _FOLDER
    """Of the methods' folders."""
    out: Path = Path("docs")
    """Where `leaderboard.md`, `optimisers.md`, `learnable.md` and `images/` are written."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.benchmark.report import write_report

        tell_written(console, self.out, write_report(self.folder, self.out))


@dataclass(frozen=True)
class Benchmark:
    """Run methods on the benchmark's tasks, check submissions, and write the leaderboard."""

    command: Annotated[
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Template, tyro.conf.subcommand("template")]
        | Annotated[Tasks, tyro.conf.subcommand("tasks")],
        tyro.conf.arg(name=""),
    ]

    def run(self, console: Console) -> None:
        """Runs the command."""
        self.command.run(console)
