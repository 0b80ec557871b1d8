"""How much of the oracle's gap a network can learn: GRPO and the same network trained with full information.

``python -m vaportok_rl.experiments.learnable OUT --table DIR``; a run that is finished is read from ``OUT``, so that an
interrupted study continues. Of the gap between the best fixed length and the oracle, a
part cannot be learnt: the oracle knows all clips of a path, the policy sees one. What a policy trained with every
length's outcome closes on held-out clips is the measure for what GRPO closes with a few samples.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import tyro
from stable_baselines3.common.callbacks import BaseCallback

from vaportok_rl.agents import GRPO, HeldOut, TaildropPolicy
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.agents.lengths.router import train_router
from vaportok_rl.agents.lengths.scripted import most_probable
from vaportok_rl.clips import Split
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.learning_curves import (
    LearningCurve,
    Method,
    Start,
    gap_table,
    load_curves,
    mean_over_folds,
    save_curve,
    write,
)
from vaportok_rl.experiments.run_folder import CONFIG_FILE, changed_settings, write_config
from vaportok_rl.experiments.runs.world_settings import StudySettings
from vaportok_rl.runtime.held_folders import hold_run_folder

# The penalty stays where the policy that training began with is worth staying near; a random one is not.
FROM_PRETRAINED = GRPOOptions()
FROM_FRESH = replace(FROM_PRETRAINED, kl_coef=0.0)


@dataclass(frozen=True)
class LearnableSettings(StudySettings):
    """Settings of the study: policies, clips (`--table` makes it cheap) and length of training."""

    folds: tuple[str, ...] = ()
    """Instead of `--table`: tables of all folds of the same footage (`table build --clips fold:1/3:PATH` and so on).
    Every run trains on each fold's training clips, and the means over the folds are shown."""
    fold_training: tuple[str, ...] = ()
    """Tables to train on, one a fold, if not the folds' own: procedural clips and the fold's films, for instance
    (`table build --clips procedural fold:1/3:PATH`)."""
    decisions: int = 81_920
    """Of GRPO and of the enumerated gradient; enough for both to converge."""
    scenes: int = 16
    """P, scenes per round."""
    group_size: int = 8
    """G, paths through each scene."""
    grpo: GRPOOptions = field(default_factory=lambda: FROM_PRETRAINED)
    """GRPO's settings from the pretrained module; the enumerated gradient has the same but no penalty."""
    fresh_grpo: GRPOOptions = field(default_factory=lambda: FROM_FRESH)
    """The same from a fresh policy, which has more to learn."""
    epochs: int = 40
    """Passes of the router over the training scenes."""
    training_scenes: int = 128
    """Training scenes at most: the router learns from them, and everyone's training gap is measured on them."""
    held_out_scenes: int = 32
    """Held-out scenes at most."""
    points: int = 20
    """Measurements along each curve."""
    starts: tuple[Start, ...] = get_args(Start)
    """`pretrained`: from the tokenizer's own taildrop module; `fresh`: from a random one."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each method and start a seed."""

    def __post_init__(self) -> None:
        if self.folds and (self.table is not None or self.held_out_table is not None):
            raise ValueError(
                f"Expected --folds or else a table, got --folds {' '.join(self.folds)} beside --table {self.table}, "
                f"--held-out-table {self.held_out_table}; each fold holds out clips of its own."
            )
        if self.fold_training and len(self.fold_training) != len(self.folds):
            raise ValueError(
                f"Expected as many tables in --fold-training as in --folds, got {len(self.fold_training)} and "
                f"{len(self.folds)}; name one for each fold, in their order."
            )

    def by_fold(self) -> list[LearnableSettings]:
        """The settings of each fold, or these alone."""
        pairs = zip(self.fold_training or self.folds, self.folds, strict=True)
        alone = replace(self, folds=(), fold_training=())
        return [replace(alone, table=taught, held_out_table=fold) for taught, fold in pairs] or [self]

    def process(self, split: Split) -> TaildropProcess:
        """The process that is trained on, or the held-out one."""
        return TaildropProcess(**self.environment(split))

    def options(self, method: Method, start: Start) -> dict[str, Any]:
        """Arguments of `GRPO` for one of the two methods that use it."""
        chosen = self.grpo if start == "pretrained" else self.fresh_grpo
        full = {"gradient": "enumerated", "kl_coef": 0.0, "kl_estimator": "exact", "ref_sync_every": None}
        return chosen.options() | (full if method == "enumerated" else {})


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
    settings: LearnableSettings, method: Method, start: Start, seed: int, training: HeldOut, held_out: HeldOut
) -> LearningCurve:
    """Trains the taildrop network by one method and follows its gap closed on training and on held-out scenes."""
    share: list[float] = []
    gaps: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()

    def gap(scenes: HeldOut, policy: TaildropPolicy) -> float:
        lengths = most_probable(policy.length_log_probs)(scenes.scene, torch.Generator()).n_tokens
        return scenes.bounds.gap_closed(scenes.evaluate(lengths).reward)

    def measure(done: float, policy: TaildropPolicy) -> None:
        policy.set_training_mode(False)
        share.append(done)
        for found, scenes in zip(gaps, (training, held_out), strict=True):
            found.append(gap(scenes, policy))

    if method == "router":
        policy = train_router(
            training,
            epochs=settings.epochs,
            pretrained=start == "pretrained",
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
            policy_kwargs={"tokenizer": process.tokenizer, "pretrained": start == "pretrained"},
            seed=seed,
            **settings.options(method, start),
        )
        policy: Any = agent.policy  # type: ignore[no-redef]
        agent.learn(
            settings.decisions,
            callback=_Follow(lambda done: measure(done, policy), settings.decisions, settings.points),
        )
    lengths = most_probable(policy.length_log_probs)(held_out.scene, torch.Generator()).n_tokens
    figures = held_out.compare({method: lengths}).results()[method]
    seconds = time.perf_counter() - begun
    return LearningCurve(method, start, seed, tuple(share), tuple(gaps[0]), tuple(gaps[1]), figures, seconds)


def learnable_gap(
    settings: LearnableSettings,
    on_run: Callable[[LearningCurve], None] | None = None,
    finished: Sequence[LearningCurve] = (),
) -> list[LearningCurve]:
    """Trains by every method from every start with every seed.

    Args:
        settings: see there.
        on_run: called with each run that was trained.
        finished: runs of these settings that need not be trained again.
    """
    known = {(curve.seed, curve.start, curve.method): curve for curve in finished}
    folds = [
        (
            fold,
            HeldOut(fold.process("train"), fold.training_scenes),
            HeldOut(fold.process("test"), fold.held_out_scenes),
        )
        for fold in settings.by_fold()
    ]
    curves = []
    for seed, start, method in itertools.product(settings.seeds, settings.starts, get_args(Method)):
        if (seed, start, method) in known:
            curves.append(known[seed, start, method])
            continue
        curves.append(
            mean_over_folds(
                [learn(fold, method, start, seed, training, held_out) for fold, training, held_out in folds]
            )
        )
        if on_run is not None:
            on_run(curves[-1])
    return curves


def describe(chosen: GRPOOptions) -> str:
    """Settings that differ from the defaults, as options of ``train``."""
    plain = asdict(GRPOOptions())
    changed = {name: value for name, value in asdict(chosen).items() if value != plain[name]}
    return " ".join(f"`--{name.replace('_', '-')} {value}`" for name, value in changed.items()) or "the defaults"


def _held_out(settings: LearnableSettings) -> str:
    """Which clips are held out, and of whom."""
    described, taught = (
        "; ".join(fold.process(split).source.describe() for fold in settings.by_fold()) for split in ("test", "train")
    )
    if settings.folds:
        return f"{described}; means over these folds, each by policies that were trained without it, on {taught}."
    return f"{described}." + (f" Trained on {taught}." if settings.held_out_table else "")


def main(
    out: tyro.conf.Positional[Path],
    settings: Annotated[LearnableSettings, tyro.conf.arg(name="")],
    page: str = "learnable",
) -> None:
    """Train by every method and write how much of the gap each closes.

    Args:
        out: folder of the runs and of what is written; runs that are there already are not repeated.
        settings: what is trained.
        page: name of the page and of its picture.

    Raises:
        ValueError: the folder's runs had other settings (seeds and starts may differ).
    """
    console = plain_console()
    out.mkdir(parents=True, exist_ok=True)
    hold_run_folder(out)
    if (out / CONFIG_FILE).is_file():
        changed = changed_settings(out, settings, free=("seeds", "starts"))
        if changed:
            raise ValueError(
                f"Expected the settings that {out} was begun with, got other values for {', '.join(changed)}; go on "
                "with the original settings, or choose another folder."
            )
    else:
        write_config(out, settings)
    kept = out / "curves"

    def report(curve: LearningCurve) -> None:
        save_curve(kept, curve)
        console.print(
            f"{curve.start:<11}{curve.method:<11}seed {curve.seed}  held-out "
            f"{100 * curve.figures['gap_closed']:5.1f} %  training {100 * curve.training[-1]:5.1f} %  "
            f"{curve.seconds:.0f} s",
            highlight=False,
        )

    heading = (
        f"{_held_out(settings)} "
        f"{settings.decisions:,} decisions ({settings.scenes} scenes × {settings.group_size} paths × "
        f"{settings.path_length} clips per round) for GRPO and for the enumerated gradient "
        f"({describe(settings.grpo)}; fresh: {describe(settings.fresh_grpo)}), "
        f"{settings.epochs} passes for the router, seeds {', '.join(map(str, settings.seeds))}."
    )
    curves = learnable_gap(settings, report, load_curves(kept))
    console.print(gap_table(curves), highlight=False, soft_wrap=True)
    written = write(out, curves, heading, page)
    console.print("written: " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.learnable")
