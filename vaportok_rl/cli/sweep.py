"""``vaportok-rl sweep``: any settings of ``train``, varied over variants, a grid or by Optuna, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written


@dataclass(frozen=True)
class Sweep:
    """Train all variants of a sweep's TOML file on all seeds, and compare them.

    Writes one CSV (one row per variant and seed), one Markdown table with intervals, and two plots. The same command
    resumes an interrupted sweep. Start it several times, on one machine or on a shared disk, to divide the runs among
    workers. See docs/sweeps.md.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The sweep: `seeds`, `[train]`, and `[variants]`, `[grid]` or `[optuna]`."""
    out: Path | None = None
    """Folder of the runs and results, new or of the same sweep; `sweeps/<file's name>` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.sweeps.plan import read_plan
        from vaportok_rl.experiments.sweeps.report import PAGE_FILE, write_report
        from vaportok_rl.experiments.sweeps.running import Worker
        from vaportok_rl.experiments.sweeps.searching import search

        plan = read_plan(self.file)
        out = self.out or Path("sweeps") / self.file.stem
        with progress_bar(console) as progress:
            task = progress.add_task("runs", total=None, live="")

            def on_run(variant: str, seed: int) -> Callable[[int, Mapping[str, float]], None]:
                total = plan.settings({}, seed).decisions
                progress.reset(task, total=total, description=f"{variant}, seed {seed}")
                return lambda decisions, live: progress.update(
                    task, completed=min(decisions, total), live=f"tokens {live['tokens']:.1f}"
                )

            worker = Worker(plan, out, on_run)
            rows = worker.work() if plan.search is None else search(worker)
        if rows is None:
            console.print(
                f"other workers still train runs of {out}; the last one to finish writes {PAGE_FILE}.", highlight=False
            )
            return
        written = write_report(out, rows, f"Sweep {self.file.stem}")
        console.print(written[1].read_text(encoding="utf-8").split("\n\n")[1], highlight=False, soft_wrap=True)
        tell_written(console, out, written)
