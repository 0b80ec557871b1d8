"""GRPO's options, each declared once: `GRPO`, ``vaportok-rl train``, the checks and docs/grpo.md read them here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from vaportok_rl.agents.grpo.credit import Credit, RewardAggregation
from vaportok_rl.agents.objective import ScaleRewards
from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, SHARE, Range, Scheduled, check_fields
from vaportok_rl.runtime.messages import did_you_mean


@dataclass(frozen=True)
class GRPOOptions:
    """Options of `GRPO` beyond policy, environment and Stable-Baselines3's arguments.

    In Python, a `Scheduled` number may also be a function of the remaining progress.
    """

    learning_rate: Annotated[float, NOT_NEGATIVE, Scheduled] = 1e-3
    """Of Adam."""
    final_learning_rate: Annotated[float | None, SHARE] = None
    """Final share of the learning rate after linear decay; 0 if not given. Not allowed with a function as learning
    rate."""
    n_epochs: Annotated[int, AT_LEAST_1] = 2
    """μ, passes over the sampled paths (TRL: ``num_iterations``)."""
    batch_size: Annotated[int | None, AT_LEAST_1] = 4
    """Scenes per gradient step; all of the round if `None`."""
    kl_coef: Annotated[float, NOT_NEGATIVE, Scheduled] = 0.2
    """β, weight of KL(π ‖ π_reference) (TRL: ``beta``)."""
    kl_estimator: Literal["exact", "k3"] = "exact"
    """KL over all actions, or estimated from the sampled ones (k3: DeepSeekMath Eq. 4)."""
    clip_range: Annotated[float, POSITIVE, Scheduled] = 0.2
    """ε_low. With one gradient step per round, clipping has no effect."""
    clip_range_high: Annotated[float | None, POSITIVE, Scheduled] = 0.28
    """ε_high (clip-higher: DAPO, arXiv 2503.14476); ε_low if `None`."""
    delta: Annotated[float | None, Range(1, open_low=True)] = None
    """Two-sided cap of the ratio (INTELLECT-2, arXiv 2505.07291), above 1 + ε_high; none if not given."""
    target_kl: Annotated[float | None, POSITIVE] = None
    """Ends the steps of a round once the KL to the sampling policy exceeds 1.5 times this (as in Stable-Baselines3's
    PPO). Copies one number per gradient step to the host."""
    credit: Credit | None = None
    """`clip` compares each decision with its group's decisions on the same clip, path terms shared; `path` gives all
    decisions of a path the path's advantage (as in the supplement). Default: `clip` on the taildrop environment, `path`
    elsewhere."""
    scale_rewards: ScaleRewards = "group"
    """Divide advantages by the standard deviation of the group, of the batch (arXiv 2508.08221), or by nothing (Dr.
    GRPO, arXiv 2503.20783)."""
    reward_aggregation: RewardAggregation = "sum_then_normalize"
    """Sum the terms before standardising, or standardise each first (GDPO, arXiv 2601.05242; TRL:
    ``multi_objective_aggregation``)."""
    advantage_eps: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Added to standard deviations."""
    drop_zero_std_groups: bool = False
    """Exclude decisions whose group has zero advantage from the loss, its KL and its mean (DAPO's filter, without
    resampling); otherwise they count as zeros, as in TRL."""
    gradient: Literal["sampled", "enumerated", "candidates"] = "sampled"
    """`sampled`: policy gradient from the sampled lengths. `enumerated`: sum over all K lengths of each decision, given
    the path's other lengths; cheap on an outcome table. `candidates`: G fixed, evenly spaced lengths per decision
    (AdaTok's deterministic group, arXiv 2606.07185)."""
    ent_coef: Annotated[float, NOT_NEGATIVE] = 0.0
    """Weight of an entropy bonus (TRL: ``entropy_coef``)."""
    ref_sync_every: Annotated[int | None, AT_LEAST_1] = None
    """Rounds between updates of the reference policy (TR-DPO, arXiv 2404.09656; TRL: ``ref_model_sync_steps``); never
    if not given."""
    ref_sync_mix: Annotated[float, Range(0, 1, open_low=True)] = 0.6
    """Weight of the policy in these updates (TRL: ``ref_model_mixup_alpha``)."""
    max_grad_norm: Annotated[float, Range(0, open_low=True, infinite=True)] = 1.0
    """Maximum gradient norm; infinity for none."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> GRPOOptions:
        """Options by name, checked.

        Raises:
            TypeError: there is no such option, or it is of another type.
            ValueError: one is out of range, or two contradict each other.
        """
        known = [field.name for field in fields(GRPOOptions)]
        for name in options:
            if name not in known:
                hint = did_you_mean(name, known, f"there are {', '.join(known)}.")
                raise TypeError(f"Expected an option of GRPO, got {name!r}; {hint}")
        chosen = cls(**options)
        chosen.check_options()
        return chosen

    def options(self) -> dict[str, Any]:
        """The options by name, without what a subclass adds."""
        return {field.name: getattr(self, field.name) for field in fields(GRPOOptions)}

    def check_options(self) -> None:
        """Checks types, ranges and combinations.

        Raises:
            TypeError: an option of another type.
            ValueError: one is out of range, or has no effect together with another.
        """
        check_fields(self, GRPOOptions)
        if callable(self.learning_rate) and self.final_learning_rate is not None:
            raise ValueError(
                f"Expected no final_learning_rate with a schedule as learning_rate, got {self.final_learning_rate}; "
                "let the schedule fall, or give a number."
            )
        inert = {"ref_sync_every": self.ref_sync_every is not None, "kl_estimator='k3'": self.kl_estimator == "k3"}
        for name, is_inert in inert.items():
            if is_inert and self.kl_coef == 0:
                raise ValueError(f"Expected kl_coef > 0 with {name}, got 0, which leaves it without effect; drop one.")
        if self.kl_estimator == "k3" and self.gradient != "sampled":
            raise ValueError(
                f"Expected kl_estimator='exact' with gradient={self.gradient!r}, got 'k3', an estimate from sampled "
                "lengths; drop one."
            )
        rule = (self.scale_rewards, self.reward_aggregation)
        if self.gradient == "candidates" and rule != ("group", "sum_then_normalize"):
            raise ValueError(
                "Expected scale_rewards='group' and reward_aggregation='sum_then_normalize' with "
                f"gradient='candidates', got {rule[0]!r} and {rule[1]!r}; drop them."
            )
        if self.reward_aggregation == "normalize_then_sum" and self.scale_rewards != "group":
            raise ValueError(
                f"Expected scale_rewards='group' with reward_aggregation='normalize_then_sum', got "
                f"{self.scale_rewards!r}, which would have no effect; drop one."
            )
        if not callable(self.clip_range) and not callable(self.clip_range_high):
            self._check_cap()

    def check_steps(self, gradient_steps: int) -> None:
        """Raises a `ValueError` for ``target_kl`` or ``delta`` with one gradient step per round.

        They have no effect at the first step, where every ratio is 1.
        """
        for name, value in (("target_kl", self.target_kl), ("delta", self.delta)):
            if value is not None and gradient_steps == 1:
                raise ValueError(
                    f"Expected more than one gradient step per round with {name}={value:g}, got one, at which every "
                    f"ratio is 1; raise n_epochs, lower batch_size, or leave {name} out."
                )

    def schedule(self) -> Schedule:
        """The learning rate by the remaining progress."""
        if callable(self.learning_rate):
            return FloatSchedule(self.learning_rate)
        final = self.learning_rate * (self.final_learning_rate or 0.0)
        return FloatSchedule(LinearSchedule(self.learning_rate, final, 1.0))

    def at(self, progress_remaining: float) -> GRPOOptions:
        """The options of one round: schedules evaluated, ``clip_range_high`` filled in.

        Raises:
            ValueError: a schedule's value is out of range.
        """
        high = self.clip_range if self.clip_range_high is None else self.clip_range_high
        kl_coef, low, high = (
            FloatSchedule(value)(progress_remaining) for value in (self.kl_coef, self.clip_range, high)
        )
        now = replace(self, kl_coef=kl_coef, clip_range=low, clip_range_high=high)
        check_fields(now, GRPOOptions)
        now._check_cap()
        return now

    def _check_cap(self) -> None:
        high = self.clip_range if self.clip_range_high is None else self.clip_range_high
        if self.delta is not None and self.delta <= 1 + high:
            raise ValueError(
                f"Expected delta > 1 + clip_range_high = {1 + high:g}, got {self.delta:g}; raise it or leave it out: "
                "clipping already bounds smaller ratios."
            )
