"""The five reward terms and their weighted sum. A term is any function ``Outcome -> [G, P, L] or [G, P]``."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Outcome

RewardTerm = Callable[[Outcome], Tensor]

DEFAULT_WEIGHTS: dict[str, float] = {
    "efficiency": 1.0,
    "penalty": 1.0,
    "diversity": 1.0,
    "reconstruction": 1.0,
    "generation": 1.0,
}


def efficiency(outcome: Outcome) -> Tensor:
    """``1 - n / K``, the share of tokens saved: ``[G, P, L]`` in [0, 1)."""
    return 1 - outcome.n_tokens.float() / outcome.tokens


def penalty(outcome: Outcome, n_threshold: int, power: float) -> Tensor:
    """Eq. 10: 0 from ``n_threshold`` tokens on, ``-((n_threshold - n) / n_threshold)^power`` below: ``[G, P, L]``."""
    short = (n_threshold - outcome.n_tokens).clamp(min=0).float() / n_threshold
    return 0.0 - short**power


def diversity(outcome: Outcome) -> Tensor:
    """A path term: the standard deviation of ``n / K`` over a path's clips, doubled to span [0, 1]: ``[G, P]``."""
    return 2 * (outcome.n_tokens.float() / outcome.tokens).std(-1, correction=0)


def reconstruction(outcome: Outcome, scale: float) -> Tensor:
    """``-mse · scale``: ``[G, P, L]``, not above 0."""
    return -outcome.mse * scale


def generation(outcome: Outcome) -> Tensor:
    """The prior's top-5 accuracy over kept tokens: ``[G, P, L]`` in [0, 1]."""
    return outcome.accuracy


@dataclass(frozen=True)
class RewardResult:
    """What a reward makes of an outcome.

    Attributes:
        terms: unweighted terms by name, each averaged over the path: ``[G, P]``.
        total: weighted sum of the terms, the path reward: ``[G, P]``.
        per_decision: ``[G, P, L]``; what each step pays. Clip terms are paid at their step, divided by L, path terms
            at the last step, so the sum over L is ``total``.
        by_clip: ``[G, P, L]``; the weighted clip terms of each decision plus the weighted path terms of its path.
            Its mean over L is ``total``.
        raw: unweighted terms as the functions returned them, ``[G, P, L]`` or ``[G, P]``.
    """

    terms: dict[str, Tensor]
    total: Tensor
    per_decision: Tensor
    by_clip: Tensor
    raw: dict[str, Tensor]


def load_term(path: str) -> RewardTerm:
    """Imports a term written as ``module:name``.

    Raises:
        ValueError: the text is not of that form, or there is no such function.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"Expected a reward term as 'module:name', got {path!r}; for example my_module:my_term.")
    try:
        term = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Expected an importable reward term at {path!r}, got {type(error).__name__}: {error}; is the module on "
            "PYTHONPATH?"
        ) from error
    if not callable(term):
        raise ValueError(f"Expected a function at {path!r}, got {type(term).__name__}; name a function.")
    return term  # type: ignore[no-any-return]


class VaporReward:
    """The weighted sum of named reward terms.

    A term is pure and sees a whole `Outcome`. It returns ``[G, P, L]`` (a clip term: entry l may depend on clip l
    alone) or ``[G, P]`` (a path term, for whatever looks across the path's clips), without weights.

    Args:
        weights: weight by term name; a term not named here keeps its default weight (1 for the five built-in terms
            and for every custom term). ``weights={"diversity": 0}`` switches a term off.
        n_threshold: below this many tokens `penalty` starts; K / 8 by default.
        penalty_power: exponent of `penalty`.
        scale: factor of `reconstruction`. At 60 the term spans about one unit between n = 1 and n = K on nano, as the
            other terms do, so that equal weights mean equal say.
        terms: custom terms, by name or as ``module:name`` strings (named after the function).

    Raises:
        ValueError: an unknown term is weighted, a weight is not finite, or a constant is out of range.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        n_threshold: int | None = None,
        penalty_power: float = 2.0,
        scale: float = 60.0,
        terms: Mapping[str, RewardTerm | str] | Sequence[str] = (),
    ) -> None:
        if n_threshold is not None and n_threshold < 1:
            raise ValueError(f"Expected n_threshold ≥ 1, got {n_threshold}; pass None for K / 8.")
        if not (penalty_power > 0 and math.isfinite(penalty_power) and scale >= 0 and math.isfinite(scale)):
            raise ValueError(
                f"Expected finite penalty_power > 0 and scale ≥ 0, got {penalty_power} and {scale}; correct them."
            )
        self.n_threshold = n_threshold
        self.penalty_power = penalty_power
        self.scale = scale
        self._terms: dict[str, RewardTerm] = {
            "efficiency": efficiency,
            "penalty": self._penalty,
            "diversity": diversity,
            "reconstruction": lambda outcome: reconstruction(outcome, self.scale),
            "generation": generation,
        }
        named = terms.items() if isinstance(terms, Mapping) else [(path.rpartition(":")[2], path) for path in terms]
        for name, term in named:
            if name in self._terms:
                raise ValueError(f"Expected a new name for a custom reward term, got {name!r} twice; rename one.")
            self._terms[name] = load_term(term) if isinstance(term, str) else term
        self.weights: dict[str, float] = dict.fromkeys(self._terms, 1.0) | DEFAULT_WEIGHTS
        for name, weight in (weights or {}).items():
            if name not in self._terms:
                close = difflib.get_close_matches(name, self._terms, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "pass the term itself in terms=."
                raise ValueError(f"Expected weights for {', '.join(self._terms)}; got unknown term {name!r}; {hint}")
            if not math.isfinite(weight):
                raise ValueError(f"Expected a finite weight for {name!r}, got {weight}; use 0 to switch a term off.")
            self.weights[name] = float(weight)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(self._terms)

    def _penalty(self, outcome: Outcome) -> Tensor:
        return penalty(outcome, self.n_threshold or max(1, outcome.tokens // 8), self.penalty_power)

    def __call__(self, outcome: Outcome) -> RewardResult:
        """Evaluates all terms.

        Raises:
            ValueError: a term returned something else than a ``[G, P, L]`` or ``[G, P]`` tensor.
        """
        shape = tuple(outcome.n_tokens.shape)
        length = shape[2]
        raw: dict[str, Tensor] = {}
        terms: dict[str, Tensor] = {}
        per_decision = torch.zeros(shape, device=outcome.mse.device)
        by_clip = torch.zeros_like(per_decision)
        for name, term in self._terms.items():
            value = term(outcome)
            if not isinstance(value, Tensor) or tuple(value.shape) not in (shape, shape[:2]):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"Expected reward term {name!r} to return a tensor [G, P, L] = {shape} or [G, P] = {shape[:2]}, "
                    f"got {got}; a term scores clips or whole paths."
                )
            raw[name] = value
            weighted = self.weights[name] * value
            if value.dim() == 3:
                terms[name] = value.mean(-1)
                per_decision = per_decision + weighted / length
                by_clip = by_clip + weighted
            else:
                terms[name] = value
                last = torch.zeros(length, device=value.device)
                last[-1] = 1
                per_decision = per_decision + weighted[..., None] * last
                by_clip = by_clip + weighted[..., None]
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum(0)
        return RewardResult(terms, total, per_decision, by_clip, raw)

    def describe(self) -> dict[str, Any]:
        """Plain data for run folders: weights and constants."""
        return {
            "weights": dict(self.weights),
            "n_threshold": self.n_threshold,
            "penalty_power": self.penalty_power,
            "scale": self.scale,
        }


def build_reward(reward: VaporReward | Mapping[str, Any] | None) -> VaporReward:
    """A reward from itself, from keyword arguments as plain data, or the default.

    Raises:
        ValueError: the mapping has a key that `VaporReward` does not know.
    """
    if reward is None:
        return VaporReward()
    if isinstance(reward, VaporReward):
        return reward
    known = ("weights", "n_threshold", "penalty_power", "scale", "terms")
    for key in reward:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see VaporReward."
            raise ValueError(f"Expected reward settings among {', '.join(known)}; got {key!r}; {hint}")
    return VaporReward(**reward)
