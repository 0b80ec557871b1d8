"""``vaportok-rl evaluate``: policies side by side on the same clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from vaportok_rl.agents import HeldOut, build_length_policy
from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.run_folder import create_run_folder, write_json
from vaportok_rl.experiments.tables import comparison_tables
from vaportok_rl.experiments.world_settings import WorldSettings


@dataclass(frozen=True)
class Evaluate:
    """Compare policies on the same clips, between the best fixed length and the oracle."""

    agent: tuple[str, ...] = ()
    """Run folders or agent files of trained policies."""
    policies: tuple[str, ...] = ("argmax", "random")
    """Further policies: random, fixed:N, argmax."""
    settings: Annotated[WorldSettings, tyro.conf.arg(name="")] = field(default_factory=WorldSettings)
    split: str = "test"
    """`test` (held out) or `train`."""
    scenes: int = 32
    """How many scenes at most."""
    seed: int = 0
    """Which clips, in which order."""
    out: Path | None = None
    """New folder for results.json; nothing is written if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        folder = None if self.out is None else create_run_folder(Path("runs"), "evaluate", self.out)
        process = TaildropProcess(**self.settings.environment(self.split))
        chosen = {spec: build_length_policy(spec, process) for spec in (*self.agent, *self.policies)}
        with progress_bar(console) as progress:
            task = progress.add_task("scoring every length", total=None, live="")
            held_out = HeldOut(process, self.scenes, self.seed, on_scene=lambda: progress.advance(task))
        lengths = {
            spec: policy(held_out.scene, torch.Generator().manual_seed(self.seed)).n_tokens
            for spec, policy in chosen.items()
        }
        comparison = held_out.compare(lengths)
        title = f"{held_out.scene.ids.numel()} clips of {process.source.describe()}"
        console.print(*comparison_tables(comparison, title))
        if folder is not None:
            content = {**comparison.results(), "headroom": comparison.headroom}
            content["headroom_share"] = comparison.headroom_share
            console.print(f"written to {write_json(folder / 'results.json', content)}", soft_wrap=True)
