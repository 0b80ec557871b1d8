"""``vaportok-rl rollout``: any policy through any number of scenes, one row a decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from vaportok_rl.agents import build_length_policy
from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.rollouts import rollout
from vaportok_rl.experiments.run_folder import create_run_folder
from vaportok_rl.experiments.world_settings import WorldSettings


@dataclass(frozen=True)
class RolloutCommand:
    """Roll a policy out and write one row a decision (Parquet) and a summary (JSON)."""

    policy: str = "random"
    """`random`, `fixed:N`, `argmax` (the pretrained module), `oracle`, or the path of a run folder or agent."""
    episodes: int = 20
    """Scenes."""
    settings: Annotated[WorldSettings, tyro.conf.arg(name="")] = field(default_factory=WorldSettings)
    split: str = "test"
    """`test` (held out) or `train`."""
    seed: int = 0
    """Of the scenes and of the policy's draws; the same seed gives the same bytes."""
    out: Path | None = None
    """New folder; `runs/<time>-rollout` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        process = TaildropProcess(**self.settings.environment(self.split))
        policy = build_length_policy(self.policy, process)
        folder = create_run_folder(Path("runs"), "rollout", self.out)
        with progress_bar(console) as progress:
            task = progress.add_task("episodes", total=self.episodes, live=self.policy)
            done = rollout(process, policy, self.episodes, self.seed, on_episode=lambda: progress.advance(task))
        paths = done.write(folder)
        summary = done.summary()
        table = Table(title=f"{self.policy}: {summary['decisions']} decisions", title_justify="left")
        table.add_column("figure")
        table.add_column("mean", justify="right")
        table.add_row("path reward", f"{summary['reward']:.4f}")
        for name, value in summary["mean"].items():
            if value is not None:
                table.add_row(name.replace("_", " "), f"{value:.4f}")
        console.print(table)
        console.print("written: " + ", ".join(str(path) for path in paths), highlight=False, soft_wrap=True)
