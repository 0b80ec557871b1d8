"""Command-line settings of the environment: clips, tokenizer, paths and reward."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vaportok_rl.envs.rewards.presets import RewardOptions
from vaportok_rl.envs.settings import WorldOptions
from vaportok_rl.tokenizer import PrecisionChoice


@dataclass(frozen=True)
class RewardSettings(RewardOptions):
    """The reward; see `VaporReward`."""

    weights: dict[str, str] = field(default_factory=dict)
    """Weights by term, for example `efficiency 2 diversity 0`; other terms have the preset's. `0:3@1000:5000` is 0
    until 1,000 decisions and rises to 3 at 5,000. Naming an optional term (`log_mse`, `lpips`, `ssim`, `prior_bits`,
    `codebook_usage`, `budget_overrun`) adds it."""
    terms: tuple[str, ...] = ()
    """Custom terms as module:name."""
    pixel_terms: tuple[str, ...] = ()
    """Custom terms on the decoded video, (decoded, clip) -> [B], as module:name."""
    scalarise: str | None = None
    """A function of a path's terms that replaces the weighted sum, as module:name."""


@dataclass(frozen=True)
class WorldSettings(WorldOptions):
    """Clips, frozen tokenizer, paths and reward; None means `WorldOptions`' default, or the table's value."""

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
