"""``vaportok-rl train``: trains the taildrop query module to choose the number of tokens of each clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vaportok_rl.agents.agent_file import AGENT_FILE
from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.reports.tables import READING, cautions, scoreboard, verdict
from vaportok_rl.experiments.run_folder import create_run_folder
from vaportok_rl.experiments.runs.training import (
    TrainSettings,
    join_processes,
    learn_beside,
    open_held_out,
    resumable_record,
    train,
)
from vaportok_rl.runtime.compute import COMPUTE_FILE, ComputeLog
from vaportok_rl.runtime.held_folders import hold_run_folder


@dataclass(frozen=True)
class Train:
    """Train a length policy over a frozen tokenizer, with GRPO, PPO, A2C or REINFORCE.

    Compares it on held-out clips with the pretrained module, the best fixed length and the oracle, and writes config,
    TensorBoard events, agent, results and pictures to a new run folder. Ctrl-C ends training early and still writes
    everything; the same command with `--resume` continues bit-exactly. GRPO also trains on several processes:
    `torchrun --nproc-per-node N -m vaportok_rl train …`. Without arguments: GRPO, the nano tokenizer, procedural clips,
    a few minutes.
    """

    settings: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(default_factory=TrainSettings)
    out: Path | None = None
    """Exact run folder; `runs/<time>-<name>` if not given. It must be new, unless --resume."""
    resume: bool = False
    """Continue the run in --out."""
    accept_differences: bool = False
    """Continue even if the clips, the weights or the reward's code are not those of the start of the run."""
    name: str | None = None
    """Name of the run; the algorithm's if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        settings = self.settings
        settings.check()
        if self.resume and self.out is None:
            raise ValueError("Expected --out with --resume, got none; name the run folder to continue.")
        if not join_processes(settings).is_main:
            learn_beside(settings, self.out if self.resume else None)
            return
        if self.resume and self.out is not None:
            folder = self.out
            hold_run_folder(folder)
            decisions = resumable_record(settings, folder).get("decisions", 0)
            console.print(f"resuming {folder} at decision {decisions}", highlight=False, soft_wrap=True)
        else:
            folder = create_run_folder(Path("runs"), self.name or settings.algo, self.out)
        compute = ComputeLog(folder, settings.device)
        with progress_bar(console) as progress:
            held_out_task = progress.add_task("scoring held-out clips", total=settings.held_out_scenes, live="")
            pool = settings.clip_pool()
            held_out = open_held_out(settings, lambda: progress.advance(held_out_task), pool)
            progress.remove_task(held_out_task)
            task = progress.add_task(settings.algo, total=settings.decisions, live="")

            def on_round(decisions: int, live: dict[str, float]) -> None:
                text = f"saved {100 * live['saved']:+.1f} %  tokens {live['tokens']:.1f}  reward {live['reward']:.3f}"
                progress.update(task, completed=min(decisions, settings.decisions), live=text)
                compute.tick()
                if decisions >= settings.decisions:
                    progress.update(task, description="comparing, drawing")

            run = train(settings, folder, held_out, on_round, self.resume, pool, self.accept_differences)
        cost = compute.write()
        if run.interrupted:
            console.print(
                f"interrupted after {run.decisions} decisions; saved {folder / AGENT_FILE}. Continue with --resume.",
                style="yellow",
                soft_wrap=True,
            )
        evaluation = run.evaluation
        console.print(evaluation.title(), highlight=False)
        console.print(scoreboard(evaluation.comparison, evaluation.intervals, console.width), READING, highlight=False)
        console.print()
        console.print(verdict(evaluation.comparison, evaluation.intervals), highlight=False, style="bold")
        for caution in cautions(evaluation.comparison, run.explained):
            console.print(caution, highlight=False, style="yellow")
        console.print(cost.describe(), style="dim", highlight=False)
        tell_written(console, run.folder, map(run.folder.joinpath, sorted({*run.files, COMPUTE_FILE})))
