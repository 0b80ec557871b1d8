"""What an environment is made of, as command-line settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vaportok_rl.tokenizer import Precision


@dataclass(frozen=True)
class RewardSettings:
    """The reward; see `VaporReward`."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weights by term, for example `efficiency 2 diversity 0`; one of the five terms not named weighs 1. Naming
    `log_mse`, `lpips`, `prior_bits`, `codebook_usage` or `budget_overrun` switches it on."""
    n_threshold: int | None = None
    """Below this many tokens the penalty starts; K / 8 if not given."""
    penalty_power: float = 2.0
    """Exponent of the penalty."""
    scale: float = 60.0
    """Factor of the reconstruction error."""
    terms: tuple[str, ...] = ()
    """Custom terms as module:name."""
    token_budget: int | None = None
    """Tokens of a path before `budget_overrun` starts; a quarter of L·K if not given."""
    perceptual_network: Literal["vgg", "alex", "squeeze"] = "vgg"
    """Backbone of `lpips`."""


@dataclass(frozen=True)
class WorldSettings:
    """Clips, frozen tokenizer and reward."""

    clips: str = "procedural"
    """Where clips come from: `procedural`, a video file, a folder, or a glob pattern."""
    tokenizer: str = "nano"
    """The frozen world: a shipped name, a checkpoint folder, or a hub id."""
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
    precision: Precision = "float32"
    """Of the frozen world; `bfloat16` is faster where the hardware has it."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split."""
        return {
            "tokenizer": self.tokenizer,
            "clips": self.clips,
            "path_length": self.path_length,
            "ordering": self.ordering,
            "min_tokens": self.min_tokens,
            "max_tokens": self.max_tokens,
            "token_budget": self.token_budget,
            "reward": asdict(self.reward),
            "split": split,
            "device": self.device,
            "precision": self.precision,
        }
