"""What an environment is made of, as command-line settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vaportok_rl.envs.rewards.presets import RewardOptions
from vaportok_rl.envs.settings import WorldOptions
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
class WorldSettings(WorldOptions):
    """Clips, frozen tokenizer, paths and reward; what is None is `WorldOptions`' default, or the table's."""

    tokenizer: str | None = None  # type: ignore[assignment]  # not given
    clips: str | None = None  # type: ignore[assignment]
    precision: PrecisionChoice | None = None  # type: ignore[assignment]
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The reward."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split."""
        values = {option.name: getattr(self, option.name) for option in fields(WorldOptions)}
        given = {name: value for name, value in values.items() if value is not None}
        return {**given, "reward": asdict(self.reward), "split": split}
