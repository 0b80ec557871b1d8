"""The benchmark's tasks. A task never changes: another version gets another name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from vaportok_rl.envs import Purse
from vaportok_rl.envs.settings import Ordering

_QUALITY = {"efficiency": 0.0, "penalty": 0.0, "diversity": 0.0, "reconstruction": 1.0, "generation": 0.0}


@dataclass(frozen=True)
class TableSpec:
    """What an outcome table of the benchmark is built from.

    Attributes:
        clips: clip source; see `open_clips`.
        train: clips to train on.
        validation: clips to tune on; they follow the training clips in the table's training split.
        test: clips that are measured once.
    """

    clips: str
    train: int
    validation: int
    test: int


GAMES = ("CarRacing-v3", "LunarLander-v3", "BipedalWalker-v3")
TABLES: Mapping[str, TableSpec] = MappingProxyType(
    {
        "procedural-v1": TableSpec("procedural", 1024, 256, 256),
        "stream-v1": TableSpec(f"streams:{','.join(GAMES)}", 768, 192, 384),
    }
)


@dataclass(frozen=True, eq=False)
class Task:
    """A task: which clips, what is paid, what may be spent, and how long may be learnt.

    Attributes:
        name: with its version.
        asks: what it asks, in one line.
        table: its outcome table, among `TABLES`.
        ordering: see `WorldOptions`.
        weights: of the reward terms; the preset `balanced` otherwise.
        token_budget: tokens per path, or None.
        purse: tokens beyond one per clip that may be spent, or None; see `Purse`.
        window: how many of the following clips are observed.
        objectives: terms of the reward vector; empty for a scalar reward.
        sweep: weight vectors that a method may train for with objectives.
        path_length: L.
        decisions: of training, over all of a sweep.
    """

    name: str
    asks: str
    table: str = "procedural-v1"
    ordering: Ordering = "independent"
    weights: Mapping[str, float] = field(default_factory=dict)
    token_budget: int | None = None
    purse: Purse | None = None
    window: int = 0
    objectives: tuple[str, ...] = ()
    sweep: tuple[tuple[float, ...], ...] = ((),)
    path_length: int = 8
    decisions: int = 40_960

    @property
    def identity(self) -> str:
        """A hash of the settings; results with another one are of another task."""
        plain = asdict(self) | {"asks": ""}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def sequential(self) -> bool:
        """Whether a decision changes what later ones may spend."""
        return self.token_budget is not None or self.purse is not None

    def reward(self, weights: tuple[float, ...] = ()) -> dict[str, Any]:
        """The reward's settings; with objectives, weighted by one entry of `sweep`."""
        chosen = dict(self.weights)
        if self.objectives:
            chosen = dict.fromkeys(_QUALITY, 0.0) | dict(zip(self.objectives, weights or self.sweep[0], strict=True))
        return {"weights": chosen}


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("procedural-v1", "a contextual bandit with a path term: the default reward"),
            Task(
                "budget-v1",
                "a knapsack over the path: 128 tokens for 8 clips, best quality",
                weights=_QUALITY,
                token_budget=128,
            ),
            Task(
                "stream-v1",
                "consecutive clips of videos, 16 tokens a second, up to 64 saved: looking ahead pays",
                table="stream-v1",
                ordering="video",
                weights=_QUALITY,
                purse=Purse(start=15, income=15, capacity=63),
                window=3,
            ),
            Task(
                "pareto-v1",
                "a reward vector: efficiency, reconstruction and generation; the volume under the front",
                objectives=("efficiency", "reconstruction", "generation"),
                sweep=(
                    *((1.0, 1.0, 1.0), (1.0, 0.5, 0.5), (2.0, 0.5, 1.0), (0.5, 1.0, 1.0)),
                    *((0.2, 1.0, 1.0), (0.1, 1.0, 0.2), (1.0, 1.0, 0.1), (0.5, 0.2, 1.0)),
                ),
            ),
        )
    }
)
