"""GRPO's options, refused where they are out of range or could not change anything."""

from __future__ import annotations

from typing import Any, get_args

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule

from vaportok_rl.agents.grpo.credit import Credit, RewardAggregation
from vaportok_rl.agents.objective import ScaleRewards

CHOICES: dict[str, tuple[str, ...]] = {
    "credit": get_args(Credit),
    "scale_rewards": get_args(ScaleRewards),
    "reward_aggregation": get_args(RewardAggregation),
    "kl_estimator": ("exact", "k3"),
    "gradient": ("sampled", "enumerated"),
}


def check_options(options: dict[str, Any]) -> None:
    """Checks the arguments of `GRPO` that do not depend on the environment.

    Raises:
        ValueError: one is not among its choices or out of range, or two together leave one of them without effect.
    """
    for name, offered in CHOICES.items():
        if options[name] not in offered:
            shown = " or ".join(map(repr, offered))
            raise ValueError(f"Expected {name} {shown}, got {options[name]!r}; pass one of them.")
    for name in ("n_epochs", "batch_size", "ref_sync_every"):
        if options[name] is not None and options[name] < 1:
            raise ValueError(f"Expected {name} ≥ 1, got {options[name]}; raise it.")
    if not 0 < options["ref_sync_mix"] <= 1:
        raise ValueError(f"Expected 0 < ref_sync_mix ≤ 1, got {options['ref_sync_mix']}; 1 replaces the reference.")
    inert = {
        "ref_sync_every": options["ref_sync_every"] is not None and options["kl_coef"] == 0,
        "kl_estimator='k3'": options["kl_estimator"] == "k3" and options["kl_coef"] == 0,
    }
    for name, is_inert in inert.items():
        if is_inert:
            raise ValueError(f"Expected kl_coef > 0 with {name}, got 0, without which it changes nothing; drop one.")
    if options["kl_estimator"] == "k3" and options["gradient"] == "enumerated":
        raise ValueError(
            "Expected kl_estimator='exact' with gradient='enumerated', got 'k3', an estimate from sampled lengths; "
            "drop one."
        )
    if options["reward_aggregation"] == "normalize_then_sum" and options["scale_rewards"] != "group":
        raise ValueError(
            f"Expected scale_rewards='group' with reward_aggregation='normalize_then_sum', got "
            f"{options['scale_rewards']!r}, which it would not read; drop one."
        )


def check_clip(low: float, high: float, delta: float | None) -> None:
    """Checks the clip range of a round.

    Raises:
        ValueError: it is empty, or the cap lies within it.
    """
    if not (low > 0 and high > 0):
        raise ValueError(f"Expected clip_range > 0 and clip_range_high > 0, got {low} and {high}; raise them.")
    if delta is not None and delta <= 1 + high:
        raise ValueError(
            f"Expected delta > 1 + clip_range_high = {1 + high:g}, got {delta:g}; below it, clipping would already "
            "bound every ratio. Raise delta or leave it out."
        )


def check_steps(gradient_steps: int, target_kl: float | None, delta: float | None) -> None:
    """Refuses what needs a second gradient step a round: the first is taken at the policy that drew the paths.

    Raises:
        ValueError: ``target_kl`` or ``delta`` with a single gradient step.
    """
    for name, value in (("target_kl", target_kl), ("delta", delta)):
        if value is not None and gradient_steps == 1:
            raise ValueError(
                f"Expected more than one gradient step a round with {name}={value:g}, got one, at which every ratio is "
                f"1; raise n_epochs, lower batch_size, or leave {name} out."
            )


def value_of(setting: float | Schedule, progress_remaining: float) -> float:
    """A setting's value now: itself, or its schedule's at the remaining progress (1 at the start, 0 at the end)."""
    return FloatSchedule(setting)(progress_remaining)
