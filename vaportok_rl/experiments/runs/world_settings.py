"""What an environment is made of, as command-line settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from vaportok_rl.envs.rewards.presets import RewardOptions
from vaportok_rl.envs.settings import WorldOptions
from vaportok_rl.tokenizer import PrecisionChoice


@dataclass(frozen=True)
class RewardSettings(RewardOptions):
    """The reward; see `VaporReward`."""

    weights: dict[str, str] = field(default_factory=dict)
    """Weights by term, for example `efficiency 2 diversity 0`; a term not named has the preset's. `0:3@1000:5000` is 0
    until 1,000 decisions and rises to 3 at 5,000. Naming `log_mse`, `lpips`, `ssim`, `prior_bits`, `codebook_usage` or
    `budget_overrun` switches it on."""
    terms: tuple[str, ...] = ()
    """Custom terms as module:name."""
    pixel_terms: tuple[str, ...] = ()
    """Terms (decoded, clip) -> [B] on the videos themselves, as module:name."""
    scalarise: str | None = None
    """A function of a path's terms, as module:name, in place of the weighted sum."""


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


@dataclass(frozen=True)
class StudySettings(WorldSettings):
    """Where a run or a study trains, and what it holds out."""

    held_out_table: str | None = None
    """Outcome table whose test split is held out, if that is not `--table`'s: other clips than one trained on."""

    def environment(self, split: str) -> dict[str, Any]:
        """Arguments of `TaildropEnv` for a split; the test split's table is the held-out one."""
        elsewhere = split == "test" and self.held_out_table is not None
        chosen = replace(self, table=self.held_out_table) if elsewhere else self
        return WorldSettings.environment(chosen, split)
