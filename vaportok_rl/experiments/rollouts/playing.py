"""Scripted rollouts: any policy through any number of scenes, one row a decision."""

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
from vaportok_rl.runtime.whole_writes import whole_write

ROWS_FILE, SUMMARY_FILE = "decisions.parquet", "summary.json"
NAMES = ("scene", "path", "step", "clip_id", "label", "file", "start_frame")
"""The columns that say which decision a row is about."""

AnyEnvironment = TaildropProcess | gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv


@dataclass(frozen=True)
class Episode:
    """One scene, walked by G paths.

    Attributes:
        number: counted from 0.
        seed: of the scene: `TaildropEnv.reset(seed=seed)` begins with it.
        scene: with P = 1.
        chosen: ``int64 [G, 1, L]``, the lengths that the policy asked for.
        log_prob: ``float32 [G, 1, L]``, of those; NaN where there is none.
        outcome: of the lengths that the token range and the budget let it keep.
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
        """One row a decision, path after path, of an episode of ``process``; see `Rollout`."""
        paths, length = self.paths, self.scene.shape[1]
        origins = [process.source.origin(index) for index in self.scene.ids[0].tolist()]

        def spread(values: Tensor) -> list[Any]:
            """``[L]`` or ``[G, 1, L]`` to one entry a decision."""
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


@dataclass(frozen=True)
class Rollout:
    """The decisions of a policy.

    Attributes:
        rows: one row a decision, scene after scene and path after path:

            - ``scene``, ``path`` (of those through the scene), ``step``, ``clip_id``, ``label`` (its name);
            - ``file`` and ``start_frame`` that the clip came from; empty and 0 where it came from no file;
            - ``complexity_score`` (0 to 1, from quantiles of the training clips, which ``obs="complexity"`` shows),
              ``spatial_complexity`` (SC, bits), ``temporal_complexity`` (TC, grey levels): no quantiles;
            - ``n_tokens``, how many were kept, and ``n_chosen``, how many the policy asked for: the same, unless the
              environment's token range or budget forbade it; ``log_prob`` of what it asked for, NaN if it has none;
            - ``mse``, ``psnr`` (dB), ``accuracy`` of the prior, and what terms measure beyond these (``ssim``, …);
            - ``reward``, what the step pays, and ``reward_NAME`` of each term, unweighted and not divided by L (a path
              term is repeated along its path).
        path_rewards: weighted reward of each path, in the order of the rows.
        asked: how many scenes were to be rolled out.
        complete: whether they all were; False after an interruption.
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
    """Rolls a policy out over fresh scenes, each scored at once.

    Episode e sees the scene that `TaildropEnv.reset(seed=seed + e)` begins with, and its rows are what stepping that
    environment with the same actions returns. The environment itself is not stepped, its random state is left alone,
    and wrappers around it are looked through.

    Args:
        env: a `TaildropEnv`, a `TaildropVectorEnv` or a `TaildropVecEnv`, wrapped or not (as `gymnasium.make` has it),
            or the `TaildropProcess` behind one.
        policy: a spec that `build_length_policy` knows, or a function from a scene and a generator to lengths.
        episodes: number of scenes; at least 1.
        seed: of the scenes and of the policy's own draws; the same seed gives the same rows, bit for bit.
        paths: G, how many times each scene is walked; by default the group size of a vector environment, otherwise 1.
        on_episode: called with each episode once it is scored.
        keep_partial: on Ctrl-C, return the episodes finished until then, marked as not ``complete``, instead of
            raising; if there are none, raise in any case.

    Raises:
        TypeError: the seed is not a Python integer.
        ValueError: ``episodes`` or ``paths`` is below 1, the environment is another, there is no such policy, or it
            chose what is not a length.
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
    """The episodes of a rollout, one at a time; arguments as for `rollout`."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(episodes):
        scene = process.sample_scene([seeding.np_random(seed + number)[0]])
        choices = [policy(scene, generator) for _ in range(paths)]
        chosen = torch.stack([choice.n_tokens for choice in choices])
        outcome, rewards = process.judge(chosen, partial(process.engine.score, scene))
        log_prob = torch.stack([choice.log_prob for choice in choices])
        yield Episode(number, seed + number, scene, chosen, log_prob, outcome, rewards)


def _process_behind(env: AnyEnvironment) -> tuple[TaildropProcess, int]:
    """The decision process of an environment and its group size.

    Raises:
        ValueError: it is another environment.
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
