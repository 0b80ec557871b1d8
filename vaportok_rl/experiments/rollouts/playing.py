"""Rollouts: runs any policy over scenes; one row per decision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pandas as pd
import torch
from gymnasium.utils import seeding
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from vaportok_rl.agents import LengthPolicy, build_length_policy
from vaportok_rl.agents.lengths.custom import ScriptedPolicy, checked_policy
from vaportok_rl.envs import (
    Outcome,
    RewardResult,
    Scene,
    TaildropEnv,
    TaildropProcess,
    TaildropVecEnv,
    TaildropVectorEnv,
)
from vaportok_rl.envs.actions import check_seed
from vaportok_rl.experiments.run_folder import write_json
from vaportok_rl.runtime.html import ShownAsTable, TableParts
from vaportok_rl.runtime.whole_writes import whole_write

ROWS_FILE, SUMMARY_FILE = "decisions.parquet", "summary.json"
NAMES = ("scene", "path", "step", "clip_id", "label", "file", "start_frame")
"""The columns that identify a decision."""

AnyEnvironment = TaildropProcess | gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv


@dataclass(frozen=True)
class Episode:
    """G paths through one scene.

    Attributes:
        number: counted from 0.
        seed: of the scene, as in `TaildropEnv.reset(seed=seed)`.
        scene: with P = 1.
        chosen: ``int64 [G, 1, L]``, the lengths requested by the policy.
        log_prob: ``float32 [G, 1, L]``, of those; NaN for a deterministic policy.
        outcome: of these lengths, clipped to the token range and the budget.
        rewards: of the outcome.
    """

    number: int
    seed: int
    scene: Scene
    chosen: Tensor
    log_prob: Tensor
    outcome: Outcome
    rewards: RewardResult

    @property
    def paths(self) -> int:
        """G."""
        return self.chosen.shape[0]

    def rows(self, process: TaildropProcess) -> pd.DataFrame:
        """One row per decision, path by path; see `Rollout`. ``process`` is the episode's."""
        paths, length = self.paths, self.scene.shape[1]
        origins = [process.source.origin(index) for index in self.scene.ids[0].tolist()]

        def spread(values: Tensor) -> list[Any]:
            """``[L]`` or ``[G, 1, L]`` to one entry per decision."""
            return values.expand(paths, 1, length).flatten().tolist()

        columns: dict[str, Any] = {
            "scene": self.number,
            "path": [path for path in range(paths) for _ in range(length)],
            "step": [*range(length)] * paths,
            "clip_id": spread(self.scene.ids[0]),
            **{
                name: [getattr(origin, name) for origin in origins] * paths for name in ("label", "file", "start_frame")
            },
            "complexity_score": spread(process.engine.complexity_scale.score(self.scene.complexity[0])),
            "spatial_complexity": spread(self.scene.complexity[0, :, 0]),
            "temporal_complexity": spread(self.scene.complexity[0, :, 1]),
            "n_tokens": spread(self.outcome.n_tokens),
            "n_chosen": spread(self.chosen),
            "log_prob": spread(self.log_prob),
            "mse": spread(self.outcome.mse),
            "psnr": spread(self.outcome.psnr),
            "accuracy": spread(self.outcome.accuracy),
            **{name: spread(value) for name, value in self.outcome.measures.items()},
            "reward": spread(self.rewards.per_decision),
        }
        for name, value in self.rewards.raw.items():
            columns[f"reward_{name}"] = spread(value if value.dim() == 3 else value[..., None])
        return pd.DataFrame(columns)


@dataclass(frozen=True, repr=False)
class Rollout(ShownAsTable):
    """The decisions of a policy.

    Attributes:
        rows: one row per decision, scene by scene and path by path:

            - ``scene``, ``path`` (within the scene), ``step``, ``clip_id``, ``label`` (its name);
            - ``file`` and ``start_frame`` of the clip; empty and 0 if it comes from no file;
            - ``complexity_score`` (0 to 1, from the quantiles that ``obs="complexity"`` shows), ``spatial_complexity``
              (SC, bits) and ``temporal_complexity`` (TC, grey levels);
            - ``n_tokens`` kept and ``n_chosen`` requested by the policy, which differ if the token range or the budget
              is exceeded; ``log_prob`` of the request, NaN for a deterministic policy;
            - ``mse``, ``psnr`` (dB), ``accuracy`` of the prior, and further measures of terms (``ssim``, …);
            - ``reward`` of the step, and ``reward_NAME`` of each term, unweighted and not divided by L (path terms are
              repeated along the path).
        path_rewards: weighted reward of each path, in the order of the rows.
        asked: number of scenes requested.
        complete: whether all were played; False after an interruption.
    """

    rows: pd.DataFrame
    path_rewards: tuple[float, ...]
    asked: int
    complete: bool = True

    def to_pandas(self) -> pd.DataFrame:
        """The rows."""
        return self.rows

    def summary(self) -> dict[str, Any]:
        """Means over all decisions, and mean and standard deviation of the path rewards."""
        means = self.rows.drop(columns=list(NAMES)).mean().to_dict()
        rewards = torch.tensor(self.path_rewards, dtype=torch.float64)
        return {
            "episodes": int(self.rows["scene"].nunique()),
            "episodes_asked": self.asked,
            "complete": self.complete,
            "paths": len(self.path_rewards),
            "decisions": len(self.rows),
            "reward": rewards.mean().item(),
            "reward_std": rewards.std(correction=0).item(),
            "mean": {name: None if pd.isna(value) else value for name, value in means.items()},
            "median_tokens": float(self.rows["n_tokens"].median()),
        }

    def _shown(self) -> TableParts:
        means = self.summary()
        played = f"{means['episodes']} of {self.asked} scenes, {means['paths']} paths, {means['decisions']} decisions"
        title = f"{played}; path reward {means['reward']:.3f} ± {means['reward_std']:.3f}"
        shown = ((name, "–" if value is None else f"{value:.4g}") for name, value in means["mean"].items())
        return title, ("", "mean per decision"), shown

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Writes ``decisions.parquet`` and ``summary.json``, each whole or not at all; returns their paths."""
        rows = folder / ROWS_FILE
        with whole_write(rows) as scratch:
            self.rows.to_parquet(scratch, index=False)
        return rows, write_json(folder / SUMMARY_FILE, self.summary())


def rollout(
    env: AnyEnvironment,
    policy: str | ScriptedPolicy,
    episodes: int,
    seed: int = 0,
    *,
    paths: int | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    keep_partial: bool = False,
) -> Rollout:
    """Rolls a policy out over new scenes, each scored at once.

    Episode e plays the scene of `TaildropEnv.reset(seed=seed + e)`; its rows equal those of stepping that environment
    with the same actions. The environment itself is not stepped, its random state does not change, and its wrappers
    are ignored.

    Args:
        env: a `TaildropEnv`, a `TaildropVectorEnv` or a `TaildropVecEnv`, wrapped or not, or a `TaildropProcess`.
        policy: a spec of `build_length_policy`, or a function from a scene and a generator to lengths.
        episodes: number of scenes; at least 1.
        seed: of the scenes and of the policy's samples; the same seed gives bitwise the same rows.
        paths: G, paths through each scene; by default the group size of a vector environment, otherwise 1.
        on_episode: called with each scored episode.
        keep_partial: on Ctrl-C, return the finished episodes, marked as not ``complete``, if there are any.

    Raises:
        TypeError: the seed is not a Python integer.
        ValueError: ``episodes`` or ``paths`` is below 1, another environment, or an unknown or invalid policy.
    """
    process, group_size = _process_behind(env)
    for name, value in (("episodes", episodes), ("paths", 1 if paths is None else paths)):
        if value < 1:
            raise ValueError(f"Expected {name} ≥ 1, got {value}; ask for at least one.")
    check_seed(seed)
    chosen = build_length_policy(policy, process) if isinstance(policy, str) else checked_policy(policy)
    finished: list[tuple[pd.DataFrame, list[float]]] = []
    complete = True
    try:
        for episode in play(process, chosen, episodes, seed, group_size if paths is None else paths):
            if on_episode is not None:
                on_episode(episode)
            finished.append((episode.rows(process), episode.rewards.total.flatten().tolist()))
    except KeyboardInterrupt:
        if not finished or not keep_partial:
            raise
        complete = False
    rows, rewards = zip(*finished, strict=True)
    return Rollout(pd.concat(rows, ignore_index=True), tuple(itertools.chain(*rewards)), episodes, complete)


def play(
    process: TaildropProcess, policy: LengthPolicy, episodes: int, seed: int = 0, paths: int = 1
) -> Iterator[Episode]:
    """Iterates over the episodes of a rollout; arguments as for `rollout`."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(episodes):
        scene = process.sample_scene([seeding.np_random(seed + number)[0]])
        choices = [policy(scene, generator) for _ in range(paths)]
        chosen = torch.stack([choice.n_tokens for choice in choices])
        outcome, rewards = process.judge(chosen, partial(process.engine.score, scene))
        log_prob = torch.stack([choice.log_prob for choice in choices])
        yield Episode(number, seed + number, scene, chosen, log_prob, outcome, rewards)


def _process_behind(env: AnyEnvironment) -> tuple[TaildropProcess, int]:
    """The MDP of an environment and its group size.

    Raises:
        ValueError: another environment.
    """
    bare = getattr(env, "unwrapped", env)
    if isinstance(bare, TaildropVecEnv):
        bare = bare.vector_env
    if isinstance(bare, TaildropProcess):
        return bare, 1
    if isinstance(bare, TaildropVectorEnv):
        return bare.process, bare.group_size
    if isinstance(bare, TaildropEnv):
        return bare.process, 1
    raise ValueError(
        f"Expected a Taildrop environment to roll out, got {type(bare).__name__}; make it with "
        "gymnasium.make('vaportok/Taildrop-v0'), or gymnasium.make_vec with vectorization_mode='vector_entry_point'."
    )
