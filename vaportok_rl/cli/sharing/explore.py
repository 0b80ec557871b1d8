"""``vaportok-rl explore``: one HTML page of clips at every length, their rewards and what policies choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.runs.world_settings import RewardSettings
from vaportok_rl.runtime.declared import AT_LEAST_1, POSITIVE, check_fields


@dataclass(frozen=True)
class Explore:
    """Write one HTML page, which needs no server and no network: clips at every length, rewards and policies' choices.

    A slider changes the tokens that are kept, and with them the video, its error and the reward. The page marks the
    oracle, the best fixed length and two policies, and lets the reward's weights be changed.
    """

    agent: tuple[str, ...] = ()
    """Trained agents to compare: run folders, agent files, or `ppo:PATH` and the like for archives. The pretrained
    taildrop module is always there."""
    clips: tuple[str, ...] = ("procedural",)
    """Clips to choose from, each as `--clips` of `train` takes them."""
    count: Annotated[int, AT_LEAST_1] = 3
    """Clips on the page, from simple to complex; together they are one path."""
    tokenizer: str = "nano"
    """A shipped name, a checkpoint folder, or a hub id."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The reward whose weights the page starts with."""
    split: Literal["test", "train"] = "test"
    """`test` (held out) or `train`."""
    seed: int = 0
    """Of the clips."""
    device: str = "cpu"
    """torch device."""
    accept_differences: bool = False
    """Show agents that were trained on other weights of the tokenizer."""
    trust_archives: bool = False
    """Also read agents from Stable-Baselines3's archives (.zip). Reading one runs the code in it."""
    megabytes: Annotated[float, POSITIVE] = 5.0
    """Maximum size of the page; pictures are compressed without loss if they fit."""
    out: Path = Path("explorer.html")
    """The page."""

    def __post_init__(self) -> None:
        check_fields(self)

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.agents import build_length_policy
        from vaportok_rl.agents.lengths.trained import find_agent, open_agent
        from vaportok_rl.agents.policy import TaildropPolicy
        from vaportok_rl.envs import TaildropProcess
        from vaportok_rl.experiments.explorer.page import (
            ShownPolicy,
            is_page,
            page_data,
            shown_lengths,
            write_page,
        )
        from vaportok_rl.experiments.reports.evaluation import AgentRun
        from vaportok_rl.experiments.runs.inputs import WEIGHTS, check_inputs, input_hashes
        from vaportok_rl.runtime.whole_writes import writable_folder

        if self.out.exists() and not is_page(self.out):
            raise FileExistsError(
                f"Expected a new file, or a page of `vaportok-rl explore` to replace, got {self.out}; choose another "
                "--out."
            )
        writable_folder(self.out.parent)
        agents = AgentRun.named(self.agent)
        process = TaildropProcess(
            tokenizer=self.tokenizer,
            clips=self.clips[0] if len(self.clips) == 1 else self.clips,
            path_length=self.count,
            reward=asdict(self.reward),
            split=self.split,
            device=self.device,
        )
        weights = {WEIGHTS: input_hashes(process)[WEIGHTS]}
        world = process.engine.world
        policies = [
            ShownPolicy(
                "pretrained module",
                build_length_policy("argmax", process),
                lambda latents: world.taildrop(latents.flatten(0, 1)).logits.unflatten(0, latents.shape[:2]),
            )
        ]
        for run in agents:
            check_inputs(run.inputs, weights, run.label, self.accept_differences)
            lengths = build_length_policy(run.spec, process, trust_archives=self.trust_archives)
            file = find_agent(Path(run.spec.removeprefix(f"{run.algorithm}:")).expanduser())
            policy = open_agent(file, run.algorithm, self.device, trust_archives=self.trust_archives).policy
            log_probs = policy.length_log_probs if isinstance(policy, TaildropPolicy) else None
            policies.append(ShownPolicy(run.label, lengths, log_probs))
        with progress_bar(console) as progress:
            task = progress.add_task("lengths", total=len(shown_lengths(process.tokens)), live="")
            data, sheets = page_data(process, policies, self.seed, lambda: progress.advance(task))
        size = write_page(data, sheets, self.out, int(self.megabytes * 1e6))
        console.print(f"written to {self.out} ({size / 1e6:.1f} MB); open it in a browser", highlight=False)
