"""The options of a reward, declared once, and their presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, Range, check_fields
from vaportok_rl.tokenizer.perceptual import PerceptualNetwork

PresetName = Literal["balanced", "paper", "rate-distortion", "spread"]
ThresholdUnit = Literal["tokens", "K", "prior"]
Reduction = Literal["mean", "sum"]
_THRESHOLDS = {"tokens": Range(1), "K": Range(0, 1, open_low=True), "prior": POSITIVE}


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """Options of a reward besides its weights and terms; None means the preset's value.

    ``docs/rewards.md`` gives each constant's formula, range, source and reason.
    """

    preset: PresetName = "balanced"
    """`balanced`: recommended; `paper`: reproduces the pattern of the paper's Table 1; `rate-distortion`: efficiency
    and reconstruction alone; `spread`: the default before version 0.2, whose diversity has no cap."""
    scale: Annotated[float | None, NOT_NEGATIVE] = None
    """Factor of the squared error in `reconstruction`; at least 0."""
    n_threshold: Annotated[float | None, POSITIVE] = None
    """`penalty` applies below this length, in units of `threshold_unit`."""
    threshold_unit: ThresholdUnit | None = None
    """Unit of `n_threshold`: `tokens`, `K` (a share of all tokens, in (0, 1]), or `prior` (a multiple of the mean of
    the clip's Gaussian length prior)."""
    penalty_power: Annotated[float | None, POSITIVE] = None
    """Exponent of `penalty`; above 0."""
    penalty_reduction: Reduction | None = None
    """Penalty of a path: mean over its clips, or sum (as written in Eq. 10)."""
    diversity_cap: Annotated[float | None, Range(0, 0.5, open_low=True)] = None
    """Cap of the standard deviation of n/K in `diversity`, in (0, 0.5]; 0.5 never binds."""
    diversity_scale: Annotated[float | None, NOT_NEGATIVE] = None
    """Factor of the capped standard deviation in `diversity`; at least 0."""
    generation_scale: Annotated[float | None, NOT_NEGATIVE] = None
    """Factor of the top-5 accuracy in `generation`; at least 0."""
    token_budget: Annotated[int | None, AT_LEAST_1] = None
    """Tokens per path above which `budget_overrun` applies; a quarter of L·K if not given."""
    constraint: str | None = None
    """A bound on a mean, such as `tokens<=20` or `psnr>=24`, enforced by a learnt multiplier; see `Constraint`."""
    constraint_rate: Annotated[float | None, POSITIVE] = None
    """Increase of the multiplier per 1,000 decisions at a relative violation of 1; above 0."""
    perceptual_network: PerceptualNetwork | None = None
    """Backbone of `lpips`: `vgg`, `alex` or `squeeze`."""
    perceptual_backbone: str | Path | None = None
    """File with the weights of that backbone; torch's cache if not given."""


@dataclass(frozen=True)
class Preset:
    """A named reward.

    Attributes:
        weights: of the five terms.
        constants: values of the constants in `RewardOptions`.
    """

    weights: Mapping[str, float]
    constants: Mapping[str, Any]


_FIVE = ("efficiency", "penalty", "diversity", "reconstruction", "generation")
_EQUAL: Mapping[str, float] = MappingProxyType(dict.fromkeys(_FIVE, 1.0))
_BALANCED: Mapping[str, Any] = {
    "scale": 60.0,
    "n_threshold": 1 / 8,
    "threshold_unit": "K",
    "penalty_power": 2.0,
    "penalty_reduction": "mean",
    "diversity_cap": 0.1,
    "diversity_scale": 1.0,
    "generation_scale": 1.0,
    "constraint_rate": 1.0,
    "perceptual_network": "vgg",
}
PRESETS: Mapping[str, Preset] = {
    # Policy and oracle have less error than a fixed length with as many tokens, and all terms matter.
    "balanced": Preset(_EQUAL, _BALANCED),
    # Leaving a term out changes the tokens as in the paper's Table 1.
    "paper": Preset(
        _EQUAL,
        {
            **_BALANCED,
            "scale": 7.0,
            "n_threshold": 0.7,
            "threshold_unit": "prior",
            "diversity_cap": 0.03,
            "generation_scale": 0.2,
        },
    ),
    # Each length's reward depends on its own clip alone: the oracle is on the lower rate-distortion envelope.
    "rate-distortion": Preset(
        {**dict.fromkeys(_FIVE, 0.0), "efficiency": 1.0, "reconstruction": 1.0},
        _BALANCED,
    ),
    # Uncapped diversity drives every policy to both ends of the range.
    "spread": Preset(_EQUAL, {**_BALANCED, "diversity_cap": 0.5, "diversity_scale": 2.0}),
}
"""Weights and constants by name; see docs/rewards.md."""
DEFAULT_WEIGHTS: dict[str, float] = dict(_EQUAL)
"""Weights of the five terms in the default reward."""


def resolved(options: RewardOptions) -> dict[str, Any]:
    """All constants of the options; those of the preset where an option is None.

    Raises:
        TypeError: a constant is no number.
        ValueError: there is no such preset, or a constant is out of range.
    """
    check_fields(options, only=RewardOptions)
    given = {field.name: getattr(options, field.name) for field in fields(RewardOptions) if field.name != "preset"}
    usual = PRESETS[options.preset].constants
    constants = {name: usual.get(name) if value is None else value for name, value in given.items()}
    unit, threshold = str(constants["threshold_unit"]), constants["n_threshold"]
    if not _THRESHOLDS[unit].holds(threshold):
        raise ValueError(
            f"Expected {_THRESHOLDS[unit].describe('n_threshold')} where threshold_unit={unit!r}, got {threshold}; "
            "change either."
        )
    return constants
