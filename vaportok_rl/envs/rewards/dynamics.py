"""Parts of a reward that change during training: scheduled weights, and the multiplier of a constraint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Outcome

Schedule = Callable[[int], float]
OF_OUTCOMES = ("tokens", "mse", "psnr", "accuracy")
_NUMBER = r"([-+]?[0-9.]+(?:e[-+]?\d+)?)"
LARGEST_WEIGHT = 1e6
"""Maximum weight: beyond it, float32 would lose the other terms."""
_RAMP = re.compile(rf"{_NUMBER}:{_NUMBER}@(\d+):(\d+)")
_CONSTRAINT = re.compile(rf"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*{_NUMBER}\s*")


@dataclass(frozen=True)
class Ramp:
    """A weight that changes linearly with the number of training decisions.

    Args:
        start: the weight until ``begin``.
        end: the weight from ``finish`` on.
        begin: decisions at the start of the change.
        finish: decisions at its end.

    Raises:
        ValueError: not 0 ≤ begin < finish, or a weight is beyond ± `LARGEST_WEIGHT`.
    """

    start: float
    end: float
    begin: int
    finish: int

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish:
            raise ValueError(f"Expected a Ramp with 0 ≤ begin < finish, got {self}; correct it.")
        for weight in (self.start, self.end):
            checked_number("a Ramp", weight)

    def __call__(self, decisions: int) -> float:
        """The weight after a number of decisions."""
        share = min(1.0, max(0.0, (decisions - self.begin) / (self.finish - self.begin)))
        return self.start + share * (self.end - self.start)

    def __str__(self) -> str:
        return f"{self.start:g}:{self.end:g}@{self.begin}:{self.finish}"


def as_weight(name: str, weight: object) -> float | Schedule:
    """A weight from a number, a schedule, or text: ``"2"``, or ``"0:3@1000:5000"`` for a `Ramp`.

    Raises:
        ValueError: it is neither, or not finite.
    """
    found: object = weight
    if isinstance(weight, str):
        ramp = _RAMP.fullmatch(weight)
        if ramp is not None:
            return Ramp(float(ramp[1]), float(ramp[2]), int(ramp[3]), int(ramp[4]))
        try:
            found = float(weight)
        except ValueError:
            found = None
    if callable(found):
        checked_number(name, found(0))
        return found
    return checked_number(name, weight if found is None else found)


def checked_number(name: str, weight: object) -> float:
    """A weight between ± `LARGEST_WEIGHT`.

    Raises:
        ValueError: it is no number, or beyond that.
    """
    try:
        number = float(weight) if not isinstance(weight, bool | str) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= LARGEST_WEIGHT:
        raise ValueError(
            f"Expected a finite weight for {name!r}, got {weight!r}; give one of ±{LARGEST_WEIGHT:g} at most, 0 to "
            "switch a term off, or a schedule '0:3@1000:5000' (0 until 1,000 decisions, 3 from 5,000 on)."
        )
    return number


@dataclass(frozen=True)
class Constraint:
    """A bound on the mean of a measure, enforced by a Lagrange multiplier.

    The reward gains the term ``-violation`` with the multiplier as its weight. After each round the multiplier λ rises
    by ``rate`` · violation for every 1,000 decisions and never falls below 0 (dual ascent). The violation is relative:
    ``(measure - bound) / |bound|`` for ``<=``, its negative for ``>=``, and undivided where the bound is 0.

    Attributes:
        measure: ``tokens``, ``mse``, ``psnr``, ``accuracy``, or a further measure of the outcome.
        at_most: whether it is an upper bound.
        bound: on the mean over the clips.
        rate: of dual ascent; positive.
    """

    measure: str
    at_most: bool
    bound: float
    rate: float

    @classmethod
    def parse(cls, text: str, rate: float) -> Constraint:
        """A constraint from text, such as ``"tokens<=20"`` or ``"psnr >= 24.5"``.

        Raises:
            ValueError: the text is not of that form.
        """
        found = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(
                f"Expected a constraint as a measure, <= or >=, and a bound, got {text!r}; for example 'tokens<=20'."
            )
        return cls(found[1], found[2] == "<=", float(found[3]), rate)

    @property
    def term(self) -> str:
        """Name of the reward term."""
        return f"constraint_{self.measure}"

    @property
    def needs(self) -> frozenset[str]:
        """The measures that the term reads; see `contract.needs`."""
        return frozenset() if self.measure in OF_OUTCOMES else frozenset({self.measure})

    def cost(self, outcome: Outcome) -> Tensor:
        """The measure, negated for a lower bound: ``[G, P, L]``; its mean should be at most `limit`."""
        if self.measure == "tokens":
            value = outcome.n_tokens.float()
        elif self.measure in OF_OUTCOMES:
            value = getattr(outcome, self.measure)
        else:
            value = outcome.measures[self.measure]
        return value if self.at_most else -value

    @property
    def limit(self) -> float:
        """Maximum of the mean cost."""
        return self.bound if self.at_most else -self.bound

    def __call__(self, outcome: Outcome) -> Tensor:
        """The reward term: minus the relative violation, ``[G, P, L]``."""
        return (self.limit - self.cost(outcome)) / (abs(self.bound) or 1.0)


@dataclass
class RewardState:
    """The training state of a reward.

    Attributes:
        decisions: number so far; the argument of schedules.
        multiplier: of the constraint, on the device once it has been used.
        violation: mean relative violation of the last round.
    """

    decisions: int = 0
    multiplier: float | Tensor = 0.0
    violation: float | Tensor = 0.0

    def multiplier_on(self, device: torch.device) -> Tensor:
        """The multiplier, ``float32 []`` on a device."""
        if not isinstance(self.multiplier, Tensor) or self.multiplier.device != device:
            self.multiplier = torch.as_tensor(self.multiplier, dtype=torch.float32).to(device)
        return self.multiplier

    def ascend(self, violation: Tensor, rate: float, decisions: int) -> None:
        """Takes a step of dual ascent for a number of decisions."""
        multiplier = self.multiplier_on(violation.device)
        self.multiplier = (multiplier + rate * decisions / 1000 * violation).clamp(min=0)
        self.violation = violation

    def as_numbers(self) -> dict[str, Any]:
        """Plain data; reads the multiplier on the host."""
        return {
            "decisions": self.decisions,
            "multiplier": float(self.multiplier),
            "violation": float(self.violation),
        }
