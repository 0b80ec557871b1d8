"""What an environment is made of, as command-line settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vaportok_rl.envs.rewards.presets import RewardOptions
from vaportok_rl.tokenizer import PrecisionChoice


@dataclass(frozen=True)
class RewardSettings(RewardOptions):
    """The reward; see `VaporReward`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weights by term, for example `efficiency 2 diversity 0`; a term not named has the preset's. Naming
    `log_mse`, `lpips`, `prior_bits`, `codebook_usage` or `budget_overrun` switches it on."""
    terms: tuple[str, ...] = ()
    """Custom terms as module:name."""


@dataclass(frozen=True)
class WorldSettings:
    """Clips, frozen tokenizer and reward."""

    table: str | None = None
    """Folder of an outcome table (`vaportok-rl table build`) that replaces the network."""
    clips: str | None = None
    """Where clips come from: `procedural`, a video file, a folder, or a glob pattern; `procedural`, or the table's, if
    not given."""
    tokenizer: str | None = None
    """The frozen world: a shipped name, a checkpoint folder, or a hub id; `nano`, or the table's, if not given."""
    path_length: int = 8
    """L, clips a path visits."""
    ordering: Literal["independent", "video"] = "independent"
    """Clips of a path: drawn one by one, or following each other in one long video."""
    min_tokens: int = 1
    """Fewest tokens that may be kept of a clip."""
    max_tokens: int | None = None
    """Most tokens that may be kept of a clip; K if not given."""
    token_budget: int | None = None
    """Most tokens that a path may keep; no limit if not given."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The reward."""
    device: str = "cpu"
    """torch device of the world and the policy."""
    precision: PrecisionChoice | None = None
    """Of the frozen world. `auto`, or the table's, if not given: `bfloat16` where that is faster, else `float32`."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split."""
        chosen = {
            "table": self.table,
            "clips": self.clips,
            "tokenizer": self.tokenizer,
            "precision": self.precision,
        }
        return {name: value for name, value in chosen.items() if value is not None} | {
            "path_length": self.path_length,
            "ordering": self.ordering,
            "min_tokens": self.min_tokens,
            "max_tokens": self.max_tokens,
            "token_budget": self.token_budget,
            "reward": asdict(self.reward),
            "split": split,
            "device": self.device,
        }
