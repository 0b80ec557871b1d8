"""What an environment is made of, as command-line settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from vaportok_rl.tokenizer import Precision


@dataclass(frozen=True)
class RewardSettings:
    """The reward; see `VaporReward`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weights by term, for example `efficiency 2 diversity 0`; a term not named weighs 1."""
    n_threshold: int | None = None
    """Below this many tokens the penalty starts; K / 8 if not given."""
    penalty_power: float = 2.0
    """Exponent of the penalty."""
    scale: float = 60.0
    """Factor of the reconstruction error."""
    terms: tuple[str, ...] = ()
    """Custom terms as module:name."""


@dataclass(frozen=True)
class WorldSettings:
    """Clips, frozen tokenizer and reward."""

    clips: str = "procedural"
    """Where clips come from: `procedural`, a video file, a folder, or a glob pattern."""
    tokenizer: str = "nano"
    """The frozen world: a shipped name, a checkpoint folder, or a hub id."""
    path_length: int = 8
    """L, clips a path visits."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The reward."""
    device: str = "cpu"
    """torch device of the world and the policy."""
    precision: Precision = "float32"
    """Of the frozen world; `bfloat16` is faster where the hardware has it."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split."""
        return {
            "tokenizer": self.tokenizer,
            "clips": self.clips,
            "path_length": self.path_length,
            "reward": asdict(self.reward),
            "split": split,
            "device": self.device,
            "precision": self.precision,
        }
