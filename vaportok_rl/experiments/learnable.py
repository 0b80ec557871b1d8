"""How much of the oracle's gap a network can learn: GRPO beside the same network taught with full information.

``python -m vaportok_rl.experiments.learnable --table DIR``. Of the gap between the best fixed length and the oracle, a
part cannot be learnt: the oracle knows all clips of a path, the policy sees one. What a policy trained with every
length's outcome closes on held-out clips is the measure for what GRPO closes with a few samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from vaportok_rl.agents import GRPO, HeldOut, TaildropPolicy
from vaportok_rl.agents.lengths import most_probable
from vaportok_rl.agents.router import train_router
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv
from vaportok_rl.experiments.figures import save_figure
from vaportok_rl.experiments.run_folder import create_run_folder, write_config, write_json
from vaportok_rl.experiments.world_settings import WorldSettings

Method = Literal["grpo", "enumerated", "router"]
FULL_INFORMATION: tuple[Method, ...] = ("enumerated", "router")


@dataclass(frozen=True)
class LearnableSettings(WorldSettings):
    """What is trained, on what (`--table` makes it cheap), for how long."""

    decisions: int = 81_920
    """Of GRPO and of the enumerated gradient; enough for both to converge."""
    scenes: int = 16
    """P, scenes a round."""
    group_size: int = 8
    """G, paths through each scene."""
    kl_coef: float = 0.1
    """β of GRPO; full information is used without a penalty."""
    epochs: int = 40
    """Passes of the router over the training scenes."""
    training_scenes: int = 128
    """Training scenes at most: the router learns from them, and everyone's training gap is measured on them."""
    held_out_scenes: int = 32
    """Held-out scenes at most."""
    points: int = 20
    """Measurements along each curve."""
    pretrained: bool = True
    """Start from the tokenizer's own taildrop module."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each method a seed."""


@dataclass(frozen=True)
class LearningCurve:
    """One run.

    Attributes:
        method: how the network was trained.
        seed: of the run.
        share: of the training done at each point, 0 … 1.
        training: gap closed on training scenes at each point.
        held_out: gap closed on held-out scenes at each point.
        figures: of the policy at the end, on held-out scenes; see `Comparison.results`.
        seconds: the whole run, measurements included.
    """

    method: Method
    seed: int
    share: tuple[float, ...]
    training: tuple[float, ...]
    held_out: tuple[float, ...]
    figures: dict[str, float]
    seconds: float

    @property
    def late_rise(self) -> float:
        """What the training gap rose by in the last quarter: near 0 when training has converged."""
        return self.training[-1] - float(np.interp(0.75, self.share, self.training))


class _Follow(BaseCallback):
    """Measures a policy every so many rounds, and once at the end."""

    def __init__(self, measure: Callable[[float], None], total: int, points: int) -> None:
        super().__init__()
        self.measure, self.total, self.points, self.measured = measure, total, points, -1

    def _on_rollout_start(self) -> None:
        due = self.num_timesteps * self.points // self.total
        if due > self.measured:
            self.measured = due
            self.measure(self.num_timesteps / self.total)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.measure(1.0)


def learn(
    settings: LearnableSettings, method: Method, seed: int, training: HeldOut, held_out: HeldOut
) -> LearningCurve:
    """Trains the taildrop network by one method and follows its gap closed on training and on held-out scenes."""
    share: list[float] = []
    gaps: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()

    def gap(scenes: HeldOut, policy: TaildropPolicy) -> float:
        lengths = most_probable(policy.length_log_probs)(scenes.scene, torch.Generator()).n_tokens
        fixed, oracle = scenes.bounds.best_fixed.reward, scenes.bounds.oracle.reward
        return (scenes.evaluate(lengths).reward - fixed) / (oracle - fixed) if oracle > fixed else float("nan")

    def measure(done: float, policy: TaildropPolicy) -> None:
        policy.set_training_mode(False)
        share.append(done)
        for found, scenes in zip(gaps, (training, held_out), strict=True):
            found.append(gap(scenes, policy))

    if method == "router":
        policy = train_router(
            training,
            epochs=settings.epochs,
            pretrained=settings.pretrained,
            seed=seed,
            on_epoch=lambda epoch, current: measure(epoch / settings.epochs, current),
        )
    else:
        process = training.process
        environment = TaildropVecEnv(
            settings.scenes * settings.group_size,
            group_size=settings.group_size,
            **settings.environment("train"),
        )
        agent = GRPO(
            "TaildropPolicy",
            environment,
            kl_coef=settings.kl_coef if method == "grpo" else 0.0,
            gradient="sampled" if method == "grpo" else "enumerated",
            policy_kwargs={"tokenizer": process.tokenizer, "pretrained": settings.pretrained},
            seed=seed,
        )
        policy: Any = agent.policy  # type: ignore[no-redef]
        agent.learn(
            settings.decisions,
            callback=_Follow(lambda done: measure(done, policy), settings.decisions, settings.points),
        )
    lengths = most_probable(policy.length_log_probs)(held_out.scene, torch.Generator()).n_tokens
    figures = held_out.compare({method: lengths}).results()[method]
    seconds = time.perf_counter() - begun
    return LearningCurve(method, seed, tuple(share), tuple(gaps[0]), tuple(gaps[1]), figures, seconds)


def learnable_gap(
    settings: LearnableSettings, on_run: Callable[[LearningCurve], None] | None = None
) -> list[LearningCurve]:
    """Trains by every method with every seed.

    Args:
        settings: see there.
        on_run: called with each finished run.
    """
    training, held_out = (
        HeldOut(TaildropProcess(**settings.environment(split)), scenes)
        for split, scenes in (("train", settings.training_scenes), ("test", settings.held_out_scenes))
    )
    curves = []
    for seed in settings.seeds:
        for method in get_args(Method):
            curves.append(learn(settings, method, seed, training, held_out))
            if on_run is not None:
                on_run(curves[-1])
    return curves


def summary(curves: Sequence[LearningCurve]) -> dict[str, Any]:
    """Medians over seeds by method; the learnable gap, the most that full information closes; GRPO's share of it."""
    methods: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(curve.method for curve in curves):
        runs = [curve for curve in curves if curve.method == method]
        methods[method] = {
            "held_out_gap_closed": float(np.median([curve.figures["gap_closed"] for curve in runs])),
            "training_gap_closed": float(np.median([curve.training[-1] for curve in runs])),
            "late_rise": float(np.median([curve.late_rise for curve in runs])),
            "seconds": float(np.median([curve.seconds for curve in runs])),
        }
    informed = [methods[name]["held_out_gap_closed"] for name in FULL_INFORMATION if name in methods]
    learnable = max(informed, default=float("nan"))
    reached = methods.get("grpo", {}).get("held_out_gap_closed", float("nan"))
    share = reached / learnable if learnable > 0 else float("nan")
    return {"methods": methods, "learnable_gap": learnable, "grpo_share_of_learnable": share}


def learning_figure(curves: Sequence[LearningCurve]) -> Figure:
    """Gap closed on training scenes (dashed) and on held-out scenes against the training done, a panel a method."""
    methods = list(dict.fromkeys(curve.method for curve in curves))
    figure, axes = plt.subplots(1, len(methods), figsize=(3.6 * len(methods), 3.4), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        runs = [curve for curve in curves if curve.method == method]
        for number, curve in enumerate(runs):
            axis.plot(curve.share, curve.training, "--", color=f"C{number}", lw=1)
            axis.plot(curve.share, curve.held_out, "-", color=f"C{number}", lw=1.5, label=f"seed {curve.seed}")
        axis.set_title(method, fontsize=10)
        axis.set_xlabel("share of training")
    axes[0][0].plot([], [], "--", color="gray", lw=1, label="training clips")
    axes[0][0].set_ylabel("gap closed")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def write(folder: Path, curves: Sequence[LearningCurve]) -> list[Path]:
    """Writes ``results.json``, ``runs.csv`` (one row a method and seed) and ``learnable.png``; returns their paths."""
    matplotlib.use("Agg")
    rows = [
        {
            "variant": curve.method,
            "seed": curve.seed,
            **curve.figures,
            "training_gap_closed": curve.training[-1],
            "late_rise": curve.late_rise,
            "seconds": curve.seconds,
        }
        for curve in curves
    ]
    table = folder / "runs.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    results = write_json(folder / "results.json", {**summary(curves), "curves": list(curves)})
    return [results, table, save_figure(learning_figure(curves), folder / "learnable.png")]


def main(settings: Annotated[LearnableSettings, tyro.conf.arg(name="")], out: Path | None = None) -> None:
    """Train by every method and write how much of the gap each closes.

    Args:
        settings: what is trained.
        out: new folder; `runs/<time>-learnable` if not given.
    """
    console = Console()
    folder = create_run_folder(Path("runs"), "learnable", out)
    write_config(folder, settings)

    def report(curve: LearningCurve) -> None:
        console.print(
            f"{curve.method:<11}seed {curve.seed}  held-out {100 * curve.figures['gap_closed']:5.1f} %  training "
            f"{100 * curve.training[-1]:5.1f} %  {curve.seconds:.0f} s",
            highlight=False,
        )

    curves = learnable_gap(settings, report)
    found = summary(curves)
    console.print(
        f"learnable gap {100 * found['learnable_gap']:.1f} %; GRPO reaches "
        f"{100 * found['grpo_share_of_learnable']:.1f} % of it",
        highlight=False,
    )
    console.print("written: " + ", ".join(map(str, write(folder, curves))), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.learnable")
