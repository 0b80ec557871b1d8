"""Scripted rollouts: any policy through any number of scenes, one row a decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from gymnasium.utils import seeding

from vaportok_rl.agents import LengthPolicy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.run_folder import write_json

ROWS_FILE, SUMMARY_FILE = "decisions.parquet", "summary.json"


@dataclass(frozen=True)
class Rollout:
    """The decisions of a policy.

    Attributes:
        rows: one row a decision: scene, path, step, clip_id, label, SC, TC, n_tokens, mse, psnr, accuracy, log_prob,
            and each unweighted reward term (a path term is repeated along its path).
        path_rewards: weighted reward of each scene's path.
    """

    rows: pd.DataFrame
    path_rewards: tuple[float, ...]

    def to_pandas(self) -> pd.DataFrame:
        """The rows."""
        return self.rows

    def summary(self) -> dict[str, Any]:
        """Means over all decisions and the mean path reward."""
        means = self.rows.drop(columns=["scene", "path", "step", "clip_id", "label"]).mean().to_dict()
        means = {name: None if pd.isna(value) else value for name, value in means.items()}
        return {
            "episodes": len(self.path_rewards),
            "decisions": len(self.rows),
            "reward": sum(self.path_rewards) / len(self.path_rewards),
            "mean": means,
            "median_tokens": float(self.rows["n_tokens"].median()),
        }

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Writes ``decisions.parquet`` and ``summary.json``; returns their paths."""
        rows = folder / ROWS_FILE
        self.rows.to_parquet(rows, index=False)
        return rows, write_json(folder / SUMMARY_FILE, self.summary())


def rollout(
    process: TaildropProcess,
    policy: LengthPolicy,
    episodes: int,
    seed: int = 0,
    on_episode: Callable[[], None] | None = None,
) -> Rollout:
    """Rolls a policy out over fresh scenes.

    Episode e sees the scene that `TaildropEnv.reset(seed=seed + e)` begins with.

    Args:
        process: clips, reward and world.
        policy: what chooses the lengths.
        episodes: number of scenes; at least 1.
        seed: of the scenes and of the policy's own draws.
        on_episode: called after each scene, for progress.

    Raises:
        ValueError: ``episodes`` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"Expected episodes ≥ 1, got {episodes}; ask for at least one scene.")
    generator = torch.Generator().manual_seed(seed)
    parts: list[pd.DataFrame] = []
    totals: list[float] = []
    for episode in range(episodes):
        scene = process.sample_scene([seeding.np_random(seed + episode)[0]])
        choice = policy(scene, generator)
        outcome = process.engine.score(scene, choice.n_tokens[None])
        result = process.reward(outcome)
        totals.append(result.total[0, 0].item())
        length = scene.shape[1]
        columns: dict[str, Any] = {
            "scene": [episode] * length,
            "path": [0] * length,
            "step": range(length),
            "clip_id": scene.ids[0].tolist(),
            "label": [process.source.label_names[label] for label in scene.labels[0].tolist()],
            "spatial_complexity": scene.complexity[0, :, 0].tolist(),
            "temporal_complexity": scene.complexity[0, :, 1].tolist(),
            "n_tokens": choice.n_tokens[0].tolist(),
            "mse": outcome.mse[0, 0].tolist(),
            "psnr": outcome.psnr[0, 0].tolist(),
            "accuracy": outcome.accuracy[0, 0].tolist(),
            "log_prob": choice.log_prob[0].tolist(),
        }
        for name, value in result.raw.items():
            columns[f"reward_{name}"] = value[0, 0].expand(length).tolist()
        parts.append(pd.DataFrame(columns))
        if on_episode is not None:
            on_episode()
    return Rollout(pd.concat(parts, ignore_index=True), tuple(totals))
