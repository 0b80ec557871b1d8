"""Compares policies on the same clips: metrics with confidence intervals, written to a run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from vaportok_rl.agents import Comparison, HeldOut, LengthPolicy
from vaportok_rl.agents.agent_file import AGENT_FILE, ALGORITHMS, ARCHIVE_FILE, read_record
from vaportok_rl.agents.comparison import BEST_FIXED, ORACLE
from vaportok_rl.agents.lengths.custom import ObservationPolicy, checked_policy
from vaportok_rl.agents.lengths.trained import algorithm_of, find_agent
from vaportok_rl.agents.scoreboard import HEADINGS, scoreboard_rows
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.evaluation import explained_variance
from vaportok_rl.evaluation.equal_tokens import share_between
from vaportok_rl.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
)
from vaportok_rl.experiments.reports.lpips import with_lpips
from vaportok_rl.experiments.reports.plots import (
    Curves,
    allocation_figure,
    rate_distortion_figure,
    reward_curves_figure,
    save_figure,
)
from vaportok_rl.experiments.reports.tables import report_tables
from vaportok_rl.experiments.run_folder import CONFIG_FILE, write_json
from vaportok_rl.experiments.runs.inputs import REWARD, reward_hash
from vaportok_rl.experiments.runs.world_settings import RewardSettings
from vaportok_rl.runtime.html import ShownAsTable, TableParts
from vaportok_rl.runtime.markdown import write_page
from vaportok_rl.tokenizer.perceptual import PerceptualNetwork

OVER_RUNS = (
    *("tokens", "mse", "saved", "saved_share", "psnr", "accuracy", "lpips", "reward", "gap_closed"),
    "spearman_complexity",
)
"""Metrics that are aggregated over the runs of one algorithm."""


@dataclass(frozen=True)
class AgentRun:
    """A trained agent of the command line.

    Attributes:
        label: its name in tables.
        spec: its name for `build_length_policy`.
        algorithm: of its training; runs of one algorithm are aggregated.
        folder: its run folder, or its file's folder.
    """

    label: str
    spec: str
    algorithm: str
    folder: Path

    @classmethod
    def named(cls, specs: tuple[str, ...]) -> tuple[AgentRun, ...]:
        """One entry per spec, labelled by its folder's name, or by the whole spec where two names would be equal.

        Raises:
            ValueError: two specs name the same agent, or copies of it.
        """
        runs = []
        for spec in specs:
            prefix, _, rest = spec.partition(":")
            named = prefix in ALGORITHMS
            path = Path(rest if named else spec).expanduser()
            algorithm = prefix if named else algorithm_of(path)
            folder = path.parent if path.name in (AGENT_FILE, ARCHIVE_FILE) else path
            name = folder.resolve().name
            runs.append(cls(name if algorithm == "grpo" else f"{algorithm}:{name}", spec, algorithm, folder))
        found: dict[object, AgentRun] = {}
        for run in runs:
            other = next((found[mark] for mark in run.marks if mark in found), None)
            if other is not None:
                raise ValueError(
                    f"Expected different agents, got {other.spec} and {run.spec}, which are the same; drop one."
                )
            found |= dict.fromkeys(run.marks, run)
        labels = [run.label for run in runs]
        return tuple(
            run if labels.count(run.label) == 1 else cls(run.spec, run.spec, run.algorithm, run.folder) for run in runs
        )

    @cached_property
    def file(self) -> Path | None:
        """The agent's file, if there is one."""
        path = Path(self.spec.removeprefix(f"{self.algorithm}:")).expanduser()
        try:
            return find_agent(path)
        except FileNotFoundError:
            return None

    @property
    def marks(self) -> tuple[object, ...]:
        """Identity of the agent: its file's hash, and its run folder if it is that folder's agent."""
        if self.file is None:
            return ()
        content = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return (content, self.file.parent.resolve()) if self.file.name in (AGENT_FILE, ARCHIVE_FILE) else (content,)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The training's record in the file; empty for an archive."""
        return {} if self.file is None or self.file.suffix == ".zip" else read_record(self.file)

    @property
    def inputs(self) -> dict[str, str]:
        """`input_hashes` of the training; empty if unknown."""
        return dict(self.record.get("inputs", {}))

    @property
    def reward(self) -> RewardSettings | None:
        """The reward of the training; None if unknown."""
        found: dict[str, Any] | None = self.record.get("reward_settings")
        if found is None:
            return None
        values: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in found.items()}
        try:
            return RewardSettings(**values)
        except TypeError as error:
            raise ValueError(
                f"Expected the reward in {self.file} to be of this version, got {error}; score it under a given one: "
                "--other-reward."
            ) from error

    @property
    def seed(self) -> int | None:
        """The seed in its ``config.yaml``, if there is one."""
        try:
            found = yaml.safe_load((self.folder / CONFIG_FILE).read_text())["seed"]
        except (OSError, KeyError, TypeError, yaml.YAMLError):
            return None
        return found if isinstance(found, int) else None

    @property
    def curves(self) -> Curves | None:
        """The curves in its ``results.json``, if there are any."""
        try:
            found = json.loads((self.folder / "results.json").read_text())["curves"]
        except (OSError, KeyError, TypeError, ValueError):
            return None
        return {name: [(x, y) for x, y in points] for name, points in found.items()}


@dataclass(frozen=True, repr=False)
class Evaluation(ShownAsTable):
    """A comparison of policies with confidence intervals.

    Attributes:
        held_out: the scenes.
        comparison: of all policies on them.
        intervals: 95 % bootstrap intervals over paths, by policy and metric: of all means, of the error saved and of
            the gap closed. All policies share the resampled paths; the best fixed length is not chosen anew.
        runs: by algorithm with several runs and by metric: ``interquartile_mean`` over the runs, its ``interval`` and
            the ``values``.
        agents: the trained policies.
        seed: of the clips and of the policies' samples.
        notes: what could not be measured, and why.
    """

    held_out: HeldOut
    comparison: Comparison
    intervals: dict[str, dict[str, Interval]]
    runs: dict[str, dict[str, dict[str, Any]]]
    agents: tuple[AgentRun, ...]
    seed: int
    notes: tuple[str, ...] = field(default=())

    def results(self) -> dict[str, Any]:
        """Metrics by policy, and common numbers at the top level."""
        comparison, span = self.comparison, self.comparison.reward(ORACLE) - self.comparison.worst.reward
        return {
            **comparison.results(),
            "headroom": comparison.headroom,
            "headroom_share": comparison.headroom_share,
            "oracle_length_iqr": comparison.oracle_length_iqr,
            "oracle_length_iqr_share": comparison.oracle_length_iqr / comparison.every.tokens,
            "reward_span": span,
            "clips": int(self.held_out.scene.ids.numel()),
            "clips_repeated": self.held_out.repeated,
            "held_out_clips": held_out_clips(self.held_out),
            "seed": self.seed,
            "intervals": self.intervals,
            "runs": self.runs,
            "notes": list(self.notes),
        }

    def table(self) -> pd.DataFrame:
        """Tidy: a row per policy (``variant``) and ``seed``; a column per metric and per interval end."""
        seeds = {run.label: run.seed for run in self.agents}
        rows = []
        for name, figures in self.comparison.results().items():
            ends = {
                f"{figure}_{end}": value
                for figure, interval in self.intervals[name].items()
                for end, value in zip(("low", "high"), interval, strict=True)
            }
            rows.append({"variant": name, "seed": seeds.get(name, self.seed), **figures, **ends})
        return pd.DataFrame(rows)

    def write_tables(self, folder: Path, **more: Any) -> list[Path]:
        """Writes ``results.json`` (with ``more`` at its top level), ``table.csv`` and ``table.md``."""
        written = [write_json(folder / "results.json", self.results() | more), folder / "table.csv"]
        self.table().to_csv(written[1], index=False)
        tables = report_tables(self.comparison, self.intervals)
        return [*written, write_page(folder / "table.md", "Policies on the same clips", self.title(), *tables)]

    def write(self, folder: Path) -> list[Path]:
        """Writes tables and plots; returns their paths."""
        comparison, written = self.comparison, self.write_tables(folder)
        figures = {
            "allocation": allocation_figure(comparison, self.held_out.score, list(comparison.scores)),
            "rate_distortion": rate_distortion_figure(comparison),
        }
        judged_by = reward_hash(self.held_out.process.reward)
        same = [run for run in self.agents if run.inputs.get(REWARD, judged_by) == judged_by]
        curves = {run.label: run.curves for run in same if run.curves}
        if curves:
            figures["reward_curves"] = reward_curves_figure(
                {label: points for label, points in curves.items() if points is not None}, comparison
            )
        return written + [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]

    def _shown(self) -> TableParts:
        return self.title(), HEADINGS, scoreboard_rows(self.comparison.results(), self.intervals)

    def title(self) -> str:
        """One line: the clips and the headroom."""
        comparison, repeated = self.comparison, self.held_out.repeated
        again = f" ({repeated} of them repeated)" if repeated else ""
        return (
            f"{self.held_out.scene.ids.numel()} clips{again} of {self.held_out.process.source.describe()}. Headroom: "
            f"{comparison.headroom:.3f} reward from best fixed n = "
            f"{comparison.scores[BEST_FIXED].n_tokens[0, 0]} to oracle, "
            f"{100 * comparison.headroom_share:.1f} % of the span from worst to oracle."
        )


def evaluate(
    process: TaildropProcess,
    policies: Mapping[str, LengthPolicy | ObservationPolicy],
    scenes: int,
    seed: int = 0,
    *,
    agents: tuple[AgentRun, ...] = (),
    lpips: PerceptualNetwork | None = None,
    on_scene: Callable[[], None] | None = None,
) -> Evaluation:
    """Compares policies on the same scenes.

    Args:
        process: clips, world and reward.
        policies: by their names in tables; torch modules from observations to logits or actions as they are.
        scenes: maximum number.
        seed: of the clips and of the policies' samples.
        agents: the trained policies.
        lpips: backbone of LPIPS; None to leave it out.
        on_scene: called after each scene is scored.
    """
    held_out = HeldOut(process, scenes, seed, on_scene)
    comparison = held_out.compare(
        {
            name: checked_policy(policy, name)(held_out.scene, torch.Generator().manual_seed(seed)).n_tokens
            for name, policy in policies.items()
        }
    )
    note = None
    if lpips is not None:
        comparison, note = with_lpips(held_out, comparison, lpips)
    return judged(held_out, comparison, seed, agents, (note,) if note else ())


def judged(
    held_out: HeldOut,
    comparison: Comparison,
    seed: int = 0,
    agents: tuple[AgentRun, ...] = (),
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """A comparison with its intervals; arguments as in `Evaluation`."""
    intervals = policy_intervals(comparison, seed)
    return Evaluation(held_out, comparison, intervals, over_runs(comparison, agents, seed), agents, seed, notes)


def policy_intervals(comparison: Comparison, seed: int = 0) -> dict[str, dict[str, Interval]]:
    """95 % bootstrap intervals over paths, by policy and metric; see `Evaluation`."""

    def gap(earned: Any, fixed: Any, best: Any, axis: int) -> Any:
        return share_between(*(sample.mean(axis) for sample in (earned, fixed, best)))

    totals = {name: score.rewards.total[0].double().cpu().numpy() for name, score in comparison.scores.items()}
    pairs = {name: score.lengths_and_errors() for name, score in comparison.scores.items()}
    at_equal_tokens = comparison.equal_tokens.intervals(pairs, seed)
    return {
        name: {
            **{metric: mean_interval(values.double().cpu(), seed) for metric, values in score.by_path().items()},
            **at_equal_tokens[name],
            "gap_closed": bootstrap_interval(gap, totals[name], totals[BEST_FIXED], totals[ORACLE], seed=seed),
        }
        for name, score in comparison.scores.items()
    }


def held_out_clips(held_out: HeldOut) -> dict[str, list[Any]]:
    """The evaluated clips, scene by scene; with ``file`` and ``start_frame`` if they come from files."""
    ids = held_out.scene.ids.flatten().tolist()
    origins = [held_out.process.source.origin(index) for index in ids]
    columns = {name: [getattr(origin, name) for origin in origins] for name in ("label", "file", "start_frame")}
    if not any(columns["file"]):
        columns = {"label": columns["label"]}
    return {"id": ids, **columns, "complexity_score": [round(score, 4) for score in held_out.score.flatten().tolist()]}


def explained_share(held_out: HeldOut) -> float | None:
    """Explained variance of the median clip with all tokens; None without the clips."""
    try:
        clips = held_out.scene.clips.flatten(0, 1)
    except (OSError, ValueError):  # an outcome table without its videos
        return None
    return explained_variance(held_out.every.mse[-1].flatten(), clips).median().item()


def over_runs(comparison: Comparison, agents: tuple[AgentRun, ...], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Aggregates runs of one algorithm and reward; see `Evaluation`."""
    results = comparison.results()
    groups: dict[tuple[str, str], list[AgentRun]] = {}
    for run in agents:
        groups.setdefault((run.algorithm, run.inputs.get(REWARD, "")), []).append(run)
    found: dict[str, dict[str, Any]] = {}
    for (algorithm, reward), runs in groups.items():
        if len(runs) < 2:
            continue
        rows = [results[run.label] for run in runs]
        alone = [name for name, _ in groups].count(algorithm) == 1
        label = algorithm if alone else f"{algorithm}, reward {reward[:6] or 'unknown'}"
        values = {figure: np.array([row[figure] for row in rows]) for figure in OVER_RUNS if figure in rows[0]}
        found[label] = {
            figure: {
                "interquartile_mean": interquartile_mean(entries),
                "interval": interquartile_mean_interval(entries, seed),
                "values": entries.tolist(),
            }
            for figure, entries in values.items()
        }
    return found
