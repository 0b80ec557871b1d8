"""GRPO, PPO, A2C and REINFORCE on the same module, the same scenes and as many decisions.

``python -m vaportok_rl.experiments.optimisers OUT --table DIR --seeds 0 1 2`` trains what is not trained yet and writes
``optimisers.csv`` (a row a measurement), ``optimisers.md`` and its picture in ``images``. A run that was finished is
read, and an interrupted one is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from vaportok_rl.agents import HeldOut
from vaportok_rl.agents.agent_file import AGENT_FILE
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.evaluation.intervals import mean_interval
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.experiments.runs.algorithms import A2CSettings, PPOSettings, ReinforceSettings
from vaportok_rl.experiments.runs.training import TrainSettings, learn, resumable_record
from vaportok_rl.experiments.runs.world_settings import StudySettings
from vaportok_rl.runtime.machine import describe_machine
from vaportok_rl.runtime.markdown import markdown_table, write_page

Variant = Literal["grpo", "grpo-path", "enumerated", "candidates", "ppo", "a2c", "reinforce"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
COLOURS: Mapping[str, str] = {
    "grpo": "tab:blue",
    "grpo-path": "tab:cyan",
    "enumerated": "tab:purple",
    "candidates": "tab:brown",
    "ppo": "tab:orange",
    "a2c": "tab:green",
    "reinforce": "tab:red",
}
OURS: Variant = "grpo"
SHARES: Mapping[str, str] = {"saved": "saved", "gap_closed": "gap closed"}
CSV_FILE, FIGURE_FILE, PAGE_FILE = "optimisers.csv", "optimisers.png", "optimisers.md"


@dataclass(frozen=True)
class Optimisers(StudySettings):
    """Train the taildrop module with each optimiser and each seed, and compare at equal decisions and in time."""

    variants: tuple[Variant, ...] = VARIANTS
    """Which optimisers; `grpo-path` is GRPO with one advantage per path instead of one per clip, `enumerated` with the
    exact gradient over all lengths, `candidates` with AdaTok's fixed group of lengths."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each variant a seed; the scenes of a seed are the same for all variants."""
    decisions: int = 40_960
    """Of each run."""
    scenes: int = 16
    """P, scenes per round."""
    group_size: int = 8
    """G, paths through each scene."""
    pretrained: bool = True
    """Start from the tokenizer's own taildrop module rather than from a fresh policy."""
    held_out_scenes: int = 32
    """Held-out scenes, the same for all runs."""
    grpo: GRPOOptions = field(default_factory=GRPOOptions)
    """Settings of `grpo`, and of its variants but for what their names say."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """PPO's settings."""
    a2c: A2CSettings = field(default_factory=A2CSettings)
    """A2C's settings."""
    reinforce: ReinforceSettings = field(default_factory=ReinforceSettings)
    """REINFORCE's settings."""

    def run_settings(self, variant: Variant, seed: int) -> TrainSettings:
        """The settings of one run."""
        mine = {part.name for part in fields(self)} & {part.name for part in fields(TrainSettings)}
        shared = {name: getattr(self, name) for name in mine - {"ppo", "a2c", "reinforce"}}
        own: dict[str, Any]
        changes: dict[str, dict[str, Any]] = {
            "grpo": {},
            "grpo-path": {"credit": "path"},
            "enumerated": {"gradient": "enumerated"},
            "candidates": {"gradient": "candidates"},
        }
        if variant in changes:
            own = asdict(self.grpo) | changes[variant]
        else:
            own = {"algo": variant, variant: getattr(self, variant)}
        return TrainSettings(**shared, **own, seed=seed)


def measured(variant: Variant, seed: int, points: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of the table: the held-out metrics of one run at each measurement, but for the unweighted terms."""
    kept = [{name: value for name, value in point.items() if not name.startswith("reward_")} for point in points]
    return [{"variant": variant, "seed": seed, **point} for point in kept]


def run_all(settings: Optimisers, out: Path, held_out: HeldOut, console: Console) -> pd.DataFrame | None:
    """Trains what is not trained yet, seed by seed.

    Args:
        settings: the comparison.
        out: holds a folder a run, ``VARIANT-SEED``.
        held_out: the same scenes for all runs.
        console: for the progress.

    Returns:
        Rows of all runs, or None if Ctrl-C ended one of them.

    Raises:
        ValueError: a run in the folder was made with other settings.
    """
    rows: list[dict[str, Any]] = []
    for seed in settings.seeds:
        for variant in settings.variants:
            run, folder = settings.run_settings(variant, seed), out / f"{variant}-{seed}"
            resume = (folder / AGENT_FILE).is_file()
            record = resumable_record(run, folder) if resume else {}
            if record.get("decisions", 0) < run.decisions:
                folder.mkdir(parents=True, exist_ok=True)
                with Progress(console=console) as progress:
                    task = progress.add_task(f"{variant}, seed {seed}", total=run.decisions)
                    report = learn(
                        run,
                        folder,
                        held_out,
                        lambda decisions, live, task=task, progress=progress: progress.update(  # type: ignore[misc]
                            task, completed=decisions
                        ),
                        resume,
                    )
                if report.decisions < run.decisions:
                    return None
                record = report.record()
            rows += measured(variant, seed, record["points"])
    return pd.DataFrame(rows)


def last_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The last measurement of each run."""
    return rows.sort_values("decisions").groupby(["variant", "seed"], sort=False).last().reset_index()


def optimisers_figure(rows: pd.DataFrame) -> Figure:
    """Error saved and gap closed on held-out clips against decisions: means over seeds, 95 % intervals."""
    figure = Figure(figsize=(9.6, 3.8))
    axes = figure.subplots(1, 2)
    for axis, (metric, label) in zip(axes, SHARES.items(), strict=True):
        for variant in rows["variant"].unique():
            at = rows[rows["variant"] == variant].groupby("decisions")[metric]
            decisions, mean = np.array(list(at.groups)), at.mean().to_numpy()
            low, high = np.array([mean_interval(values.to_numpy()) for _, values in at]).T
            axis.plot(decisions, 100 * mean, color=COLOURS[variant], lw=1.6, label=variant)
            axis.fill_between(decisions, 100 * low, 100 * high, color=COLOURS[variant], alpha=0.15, lw=0)
        axis.set_xlabel("decisions")
        axis.set_ylabel(f"held-out {label} (%)")
        axis.grid(alpha=0.2)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def ends_table(rows: pd.DataFrame) -> str:
    """One row per variant: means over seeds at the end."""
    last = last_points(rows)
    lines = []
    for variant in rows["variant"].unique():
        end = last[last["variant"] == variant]
        tokens, reward = end[["tokens", "reward"]].mean()
        lines.append((variant, f"{tokens:.1f}", *(_percent(end[metric]) for metric in SHARES), f"{reward:.4f}"))
    return markdown_table(("optimiser", "tokens", *SHARES.values(), "reward"), lines)


def times_table(rows: pd.DataFrame) -> str:
    """One row per variant: seconds of training on this machine, means over seeds."""
    seconds = last_points(rows).groupby("variant", sort=False)[["seconds", "decisions"]].mean()
    lines = [
        (variant, f"{taken:.0f}", f"{decisions / taken:.0f}") for variant, taken, decisions in seconds.itertuples()
    ]
    return markdown_table(("optimiser", "seconds", "decisions/s"), lines)


def differences_table(rows: pd.DataFrame) -> str:
    """GRPO's defaults against each other variant, seed by seed: points beyond it, and the share of its gap closed."""
    last = last_points(rows).pivot(index="seed", columns="variant", values=list(SHARES))
    lines = []
    for other in rows["variant"].unique():
        if other != OURS:
            beyond = [_percent(last[metric, OURS] - last[metric, other], "+") for metric in SHARES]
            share = last["gap_closed", OURS].mean() / last["gap_closed", other].mean()
            lines.append((other, *beyond, f"{100 * share:.0f} %"))
    return markdown_table((f"{OURS} beyond", *SHARES.values(), "of its gap closed"), lines)


def _percent(values: Any, sign: str = "") -> str:
    """Mean and 95 % interval over seeds, in per cent; without an interval where there is one seed."""
    shares = 100 * np.asarray(values, dtype=np.float64)
    low, high = mean_interval(shares)
    interval = "" if np.isnan(low) else f" [{low:{sign}.1f}, {high:{sign}.1f}]"
    return f"{shares.mean():{sign}.1f} %{interval}"


def write(settings: Optimisers, rows: pd.DataFrame, held_out: HeldOut, out: Path) -> list[Path]:
    """Writes the CSV, the picture and the page."""
    csv, png = out / CSV_FILE, out / "images" / FIGURE_FILE
    png.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(csv, index=False)
    save_figure(optimisers_figure(rows), png)
    machine = describe_machine(settings.device)
    of_grpo = "" if OURS not in set(rows["variant"]) else differences_table(rows)
    text = write_page(
        out / PAGE_FILE,
        "Optimisers on the same module and the same scenes",
        f"Written by `python -m vaportok_rl.experiments.optimisers`. Reward `{settings.reward.preset}`; every run "
        f"trains the {'pretrained' if settings.pretrained else 'fresh'} taildrop module for {settings.decisions:,} "
        f"decisions ({settings.scenes} scenes × {settings.group_size} paths × {settings.path_length} clips per round). "
        "With one seed, all optimisers visit the same scenes in the same order.",
        "`grpo` has its defaults. `grpo-path` gives all clips of a path one advantage (`--credit path`), `enumerated` "
        "has the exact gradient over all lengths, `candidates` compares the same evenly spaced lengths of every clip, "
        "as AdaTok (arXiv 2606.07185) compares budgets. PPO and A2C are Stable-Baselines3's, on the same policy class "
        "with a linear critic on the module's features; REINFORCE has a moving-average baseline. These three step "
        "through the `VecEnv` with the settings of `train --algo`; GRPO samples and scores a round at once.",
        f"Means over seeds {', '.join(map(str, settings.seeds))} with 95 % bootstrap intervals over seeds, on "
        f"{held_out.scene.ids.numel()} held-out clips of {held_out.process.source.describe()}. *Saved*: less error "
        "than a fixed length of as many tokens.",
        ends_table(rows),
        "At equal decisions, seed by seed:",
        of_grpo,
        f"![What is saved and the gap closed, during training](images/{FIGURE_FILE})",
        f"Times of training alone, on {machine['processor']}, threads: {machine['threads']}.",
        times_table(rows),
    )
    return [csv, png, text]


def main(
    out: tyro.conf.Positional[Path],
    settings: Annotated[Optimisers, tyro.conf.arg(name="")],
) -> None:
    """Compare optimisers on the taildrop module.

    Args:
        out: folder of the runs and of what is written; runs that are there already are not repeated.
        settings: the comparison.
    """
    console = plain_console()
    held_out = HeldOut(TaildropProcess(**settings.environment("test")), settings.held_out_scenes)
    rows = run_all(settings, out, held_out, console)
    if rows is None:
        console.print(Text.assemble(("interrupted", "yellow"), ": the same command continues"), highlight=False)
        return
    written = write(settings, rows, held_out, out)
    console.print(ends_table(rows), highlight=False, soft_wrap=True)
    console.print("written: " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.optimisers")
