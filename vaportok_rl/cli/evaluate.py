"""``vaportok-rl evaluate``: policies side by side on the same clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.experiments.runs.world_settings import RewardSettings, WorldSettings

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Evaluate:
    """Compare policies on the same clips, between the best fixed length and the oracle.

    Prints the headroom and a table. Writes the table with intervals (results.json, table.csv, table.md) and plots of
    allocation, rate–distortion and the agents' reward curves to a new folder.
    """

    agent: tuple[str, ...] = ()
    """Trained agents: run folders, agent files, or `ppo:PATH` and the like for archives. They are scored under the
    reward of their training. Several of one algorithm and reward are also aggregated (interquartile mean)."""
    other_reward: bool = False
    """Score all agents under the reward given here (by default the default reward) instead of their own."""
    accept_differences: bool = False
    """Evaluate agents even if the clips or the weights are not those of their training."""
    baselines: tuple[str, ...] = ("random", "argmax")
    """Policies without reinforcement learning: names as in `rollout --policy`, `all` (which trains the router for a
    minute or two), or `none`."""
    policies: tuple[str, ...] = ()
    """Further policies: anything that `rollout --policy` takes."""
    settings: Annotated[WorldSettings, tyro.conf.arg(name="")] = field(default_factory=WorldSettings)
    split: Literal["test", "train"] = "test"
    """`test` (held out) or `train`."""
    scenes: int = 32
    """Maximum number of scenes."""
    trust_archives: bool = False
    """Also read agents from Stable-Baselines3's archives (.zip). Reading one runs the code in it, so its author must be
    trusted."""
    seed: int = 0
    """Of the scenes and of the policies' samples."""
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
        from vaportok_rl.experiments.runs.inputs import REWARD, check_inputs, input_hashes, reward_hash, warn_if_renamed

        if self.scenes < 1:
            raise ValueError(f"Expected scenes ≥ 1, got {self.scenes}; ask for at least one.")
        if len(self.baselines) > 1 and {ALL, NONE} & set(self.baselines):
            raise ValueError(
                f"Expected baselines all, none, or names, got {' '.join(self.baselines)}; give one of the three."
            )
        agents = AgentRun.named(self.agent)
        own = {run.label: run.reward for run in agents if run.reward is not None and not self.other_reward}
        settings = self.settings if not own else replace(self.settings, reward=self._own_reward(own))
        process = TaildropProcess(**settings.environment(self.split))
        hashes = input_hashes(process)
        if self.other_reward:
            del hashes[REWARD]
        for run in agents:
            check_inputs(run.inputs, hashes, run.label, self.accept_differences)
            warn_if_renamed(run.record, run.label)
        states = [run.record["reward"] for run in agents if run.label in own]
        if states:
            # Schedules and a constraint's multiplier continue from the end of training; of several agents, the mean.
            process.reward.restore(
                {name: type(value)(fmean(state[name] for state in states)) for name, value in states[0].items()}
            )
        calibration = Calibration(process)
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
            progress.update(task, description="scoring held-out clips", live="", completed=0, total=self.scenes)
            evaluation = evaluate(
                process,
                chosen,
                self.scenes,
                self.seed,
                agents=agents,
                lpips=None if self.lpips == "none" else self.lpips,
                on_scene=lambda: progress.advance(task),
            )
        judge = "the agents' own" if own else "the"
        reward = settings.reward
        parts = [reward.preset, *map(" ".join, reward.weights.items()), *reward.terms, *reward.pixel_terms]
        headline = f"Scored under {judge} reward: {', '.join(parts)} (hash {reward_hash(process.reward)[:6]})."
        evaluation = replace(evaluation, notes=(headline, *evaluation.notes))
        console.print(headline, evaluation.title(), highlight=False)
        console.print(scoreboard(evaluation.comparison, evaluation.intervals, console.width), READING, highlight=False)
        if evaluation.runs:
            console.print(runs_table(evaluation.runs, console.width))
        for note in evaluation.notes[1:]:
            console.print(note, style="dim", highlight=False)
        written = [write_config(folder, replace(self, out=None, settings=settings)), *evaluation.write(folder)]
        tell_written(console, folder, written)

    def _own_reward(self, own: Mapping[str, RewardSettings]) -> RewardSettings:
        """The reward of the agents' training.

        Raises:
            ValueError: they differ, or another one is given.
        """
        first = next(iter(own.values()))
        differing = [label for label, reward in own.items() if reward != first]
        if differing:
            raise ValueError(
                f"Expected agents trained under one reward, got others in {', '.join(differing)} than in "
                f"{next(iter(own))}; evaluate them separately, or score all under the given reward: --other-reward."
            )
        if self.settings.reward not in (RewardSettings(), first):
            raise ValueError(
                f"Expected the reward that {next(iter(own))} was trained under, got another; drop --reward, or score "
                "under it: --other-reward."
            )
        return first
