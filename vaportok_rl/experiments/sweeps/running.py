"""Workers of a sweep: each takes the runs that no other has, resumes interrupted ones and repeats none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaportok_rl.agents import HeldOut
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.rewards.reward import build_reward
from vaportok_rl.experiments.generation.length_distances import LengthDistances
from vaportok_rl.experiments.run_folder import CONFIG_FILE, plain, write_json
from vaportok_rl.experiments.runs.training import TrainSettings, learn
from vaportok_rl.experiments.sweeps.plan import METRICS, SweepPlan, slug
from vaportok_rl.runtime.compute import Compute, ComputeLog
from vaportok_rl.runtime.held_folders import hold_run_folder, release_run_folder

RESULT_FILE = "result.json"
Row = dict[str, Any]
OnRun = Callable[[str, int], Callable[[int, Mapping[str, float]], None]]
"""Called with variant and seed when a run starts; its result is called after each round."""


# Ends the name of a maximum mean discrepancy.
_MMD = "_mmd"


def _comes_last(name: str) -> bool:
    """Whether a figure is a raw reward term or a maximum mean discrepancy, which follow the metrics in a row."""
    return name.startswith("reward_") or name.endswith(_MMD)


class _HeldElsewhereError(Exception):
    """Another worker has the run."""


@dataclass
class Worker:
    """Trains the runs of a sweep, one after the other; opens the feature network and the generator at once.

    Args:
        plan: the sweep.
        out: folder of the runs, ``runs/<variant>-<seed>`` each.
        on_run: reports progress.

    Attributes:
        notes: clips, feature network and its hash of each distance that the runs measured.
        distances: what identifies the feature network and the generator; empty without them.
    """

    plan: SweepPlan
    out: Path
    on_run: OnRun = lambda variant, seed: lambda decisions, live: None
    notes: dict[str, str] = field(default_factory=dict)
    distances: list[str | None] = field(init=False)
    _held_out: dict[str, tuple[HeldOut, LengthDistances | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.distances = [] if self.plan.distances is None else self.plan.distances.identity()

    def work(self) -> list[Row] | None:
        """Trains all runs of the plan's variants that no other worker has finished or is training.

        Returns:
            A row for each variant and seed, in the plan's order; None while other workers still train some.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after saving; the next call resumes the run.
            ValueError: the folder holds runs with other settings.
        """
        jobs = [(variant, seed) for seed in self.plan.seeds for variant in self.plan.variants]
        rows: dict[tuple[str, int], Row] = {}
        for variant, seed in jobs:
            try:
                rows[variant, seed] = self.make(variant, self.plan.variants[variant], seed)
            except _HeldElsewhereError:
                continue
        for job in jobs:  # finished by others in the meantime
            if job not in rows and (found := self._finished(*job, self.plan.variants[job[0]])) is not None:
                rows[job] = found
        if len(rows) < len(jobs):
            return None
        return [rows[variant, seed] for variant in self.plan.variants for seed in self.plan.seeds]

    def make(self, variant: str, changes: Mapping[str, Any], seed: int) -> Row:
        """The row of one run: read if finished, otherwise after training or resuming it.

        Distances by another feature network or generator are measured again.
        """
        found = self._finished(variant, seed, changes)
        if found is not None:
            return found
        folder = self._folder(variant, seed)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            hold_run_folder(folder)
        except FileExistsError as error:
            raise _HeldElsewhereError from error
        try:
            found = self._finished(variant, seed, changes)  # by its last holder
            if found is not None:
                return found
            settings = self.plan.settings(changes, seed)
            compute = ComputeLog(folder, settings.device)
            held_out, distances = self._judge(settings)
            resume = (folder / CONFIG_FILE).is_file()
            on_round = self.on_run(variant, seed)

            def on_round_too(decisions: int, live: Mapping[str, float]) -> None:
                on_round(decisions, live)
                compute.tick()

            report = learn(settings, folder, held_out, on_round_too, resume=resume)
            compute.write()
            if report.decisions < settings.decisions:
                raise KeyboardInterrupt
            measured = {} if distances is None else distances(report.lengths())
            figures = report.points[-1] | {name: found.frechet for name, found in measured.items()}
            figures |= {f"{name}{_MMD}": found.mmd for name, found in measured.items()}
            own = {name: value for name, value in figures.items() if name in METRICS or _comes_last(name)}
            row = {"variant": variant, "seed": seed, **changes, **own}
            content = {
                "settings": settings,
                "row": row,
                "distances": self.distances,
                "points": report.points,
                "notes": {name: found.note() for name, found in measured.items()},
            }
            write_json(folder / RESULT_FILE, content)
            return self._counted(self._read(folder / RESULT_FILE))
        finally:
            release_run_folder(folder)

    def results(self) -> list[dict[str, Any]]:
        """What was written of each finished run, in the plan's order: ``row`` and held-out ``points``."""
        return [self._read(self._folder(*job) / RESULT_FILE) for job in self._jobs]

    @property
    def compute(self) -> Compute:
        """What all runs cost together."""
        return sum((Compute.read(self._folder(*job)) for job in self._jobs), Compute())

    @property
    def _jobs(self) -> list[tuple[str, int]]:
        return [(variant, seed) for variant in self.plan.variants for seed in self.plan.seeds]

    def _folder(self, variant: str, seed: int) -> Path:
        return self.out / "runs" / f"{slug(variant)}-{seed}"

    def _finished(self, variant: str, seed: int, changes: Mapping[str, Any]) -> Row | None:
        file = self._folder(variant, seed) / RESULT_FILE
        if not file.is_file():
            return None
        content = self._read(file)
        wanted = json.loads(json.dumps(plain(self.plan.settings(changes, seed))))
        changed = [name for name, value in wanted.items() if content["settings"].get(name) != value]
        if changed:
            raise ValueError(
                f"Expected {file.parent} to be a run with these settings, got one with another {', '.join(changed)}; "
                "choose another --out."
            )
        return self._counted(content) if content.get("distances") == self.distances else None

    def _counted(self, content: Mapping[str, Any]) -> Row:
        """The row of a result that belongs to the sweep; its notes join those of the others."""
        self.notes |= content.get("notes", {})
        row: Row = content["row"]
        return row

    def _read(self, file: Path) -> Any:
        # The file has sorted keys, so the order of the columns is restored.
        try:
            content = json.loads(file.read_text())
            row = dict(content["row"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected the result of a run at {file}, got a damaged file ({error}); delete it, and the run is "
                "measured again."
            ) from error
        front = ["variant", "seed"]
        back = [name for name in METRICS if name in row]
        back += sorted(filter(_comes_last, row))
        middle = sorted(row.keys() - {*front, *back})
        content["row"] = {name: row[name] for name in (*front, *middle, *back)}
        return content

    def _judge(self, settings: TrainSettings) -> tuple[HeldOut, LengthDistances | None]:
        """Held-out scenes with all lengths scored, the same for all runs on the same clips and tokenizer."""
        arguments = settings.environment("test")
        needs = sorted(build_reward(arguments["reward"]).needs)
        others = {name: value for name, value in arguments.items() if name != "reward"}
        key = json.dumps(plain([others, needs, settings.held_out_scenes]), sort_keys=True)
        if key not in self._held_out:
            made = HeldOut(TaildropProcess(**arguments), settings.held_out_scenes)
            asked = self.plan.distances
            distances = None if asked is None else LengthDistances(asked, made.process, made.scene)
            self._held_out[key] = made, distances
        return self._held_out[key]
