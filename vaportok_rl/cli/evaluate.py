"""``vaportok-rl evaluate``: policies side by side on the same clips."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.experiments.runs.world_settings import WorldSettings

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Evaluate:
    """Compare policies on the same clips, between the best fixed length and the oracle.

    Prints the headroom and one table, and writes it with intervals (results.json, table.csv, table.md) and pictures of
    allocation, rate against distortion, and the agents' reward curves to a new folder.
    """

    agent: tuple[str, ...] = ()
    """Trained agents: run folders or agent files of GRPO's, or `ppo:PATH` and the like. Several of one algorithm are
    also aggregated (interquartile mean)."""
    baselines: tuple[str, ...] = ("random", "argmax")
    """Policies that need no reinforcement learning: their names as in `rollout --policy`, `all` of them (the router
    among them learns for a minute or two), or `none`."""
    policies: tuple[str, ...] = ()
    """Further policies: anything that `rollout --policy` takes."""
    settings: Annotated[WorldSettings, tyro.conf.arg(name="")] = field(default_factory=WorldSettings)
    split: Literal["test", "train"] = "test"
    """`test` (held out) or `train`."""
    scenes: int = 32
    """How many scenes at most."""
    trust_archives: bool = False
    """Read agents from Stable-Baselines3's archives (.zip) too. Reading one runs whatever code it holds: do so only if
    you trust who made it."""
    seed: int = 0
    """Which clips, in which order, and the draws of random policies."""
    lpips: Literal["alex", "vgg", "squeeze", "none"] = "alex"
    """Network of LPIPS, measured if its weights are on this machine."""
    out: Path | None = None
    """New folder; `runs/<time>-evaluate` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.agents import build_length_policy
        from vaportok_rl.agents.lengths.calibration import Calibration
        from vaportok_rl.agents.lengths.specs import baseline_specs
        from vaportok_rl.envs import TaildropProcess
        from vaportok_rl.experiments.reports.evaluation import AgentRun, evaluate
        from vaportok_rl.experiments.reports.tables import READING, runs_table, scoreboard

        if self.scenes < 1:
            raise ValueError(f"Expected scenes ≥ 1, got {self.scenes}; ask for at least one.")
        if len(self.baselines) > 1 and {ALL, NONE} & set(self.baselines):
            raise ValueError(
                f"Expected baselines all, none, or names, got {' '.join(self.baselines)}; give one of the three."
            )
        process = TaildropProcess(**self.settings.environment(self.split))
        calibration = Calibration(process)
        agents = AgentRun.named(self.agent)
        chosen = {
            run.label: build_length_policy(run.spec, process, trust_archives=self.trust_archives) for run in agents
        }
        folder = create_run_folder(Path("runs"), "evaluate", self.out)
        with progress_bar(console) as progress:
            task = progress.add_task("preparing policies", total=None, live="")
            baselines = self.baselines
            if baselines == (ALL,):
                baselines = baseline_specs(calibration)
            for spec in (*(baselines if baselines != (NONE,) else ()), *self.policies):
                progress.update(task, live=spec)
                chosen[spec] = build_length_policy(spec, process, calibration, trust_archives=self.trust_archives)
            progress.update(task, description="scoring every length", live="", completed=0)
            evaluation = evaluate(
                process,
                chosen,
                self.scenes,
                self.seed,
                agents=agents,
                lpips=None if self.lpips == "none" else self.lpips,
                on_scene=lambda: progress.advance(task),
            )
        console.print(evaluation.title(), highlight=False)
        console.print(scoreboard(evaluation.comparison, evaluation.intervals, console.width), READING, highlight=False)
        if evaluation.runs:
            console.print(runs_table(evaluation.runs))
        for note in evaluation.notes:
            console.print(note, style="dim", highlight=False)
        written = [write_config(folder, dataclasses.replace(self, out=None)), *evaluation.write(folder)]
        console.print("written: " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
