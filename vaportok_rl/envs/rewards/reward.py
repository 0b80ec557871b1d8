"""The five reward terms and the weighted sum of these, of further and of custom ones (see `term_contract`)."""

from __future__ import annotations

import copy
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.envs.rewards.contract import RewardTerm as RewardTerm
from vaportok_rl.envs.rewards.contract import dry_run_term, evaluate_term, load_term, needs_of, synthetic_outcome
from vaportok_rl.envs.rewards.further_terms import (
    FURTHER_TERMS,
    budget_overrun,
    codebook_usage,
    log_mse,
    lpips,
    prior_bits,
)
from vaportok_rl.envs.rewards.presets import preset_weights
from vaportok_rl.envs.scene import Outcome
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.tokenizer.perceptual import PerceptualDistance, PerceptualNetwork

DEFAULT_WEIGHTS: dict[str, float] = preset_weights("paper")


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
    """What a reward makes of an outcome; everything beyond `raw` is worked out when it is first read.

    Attributes:
        raw: unweighted terms as the functions returned them, ``[G, P, L]`` (clip terms) or ``[G, P]`` (path terms).
        weights: by term.
        path_length: L.
    """

    raw: dict[str, Tensor]
    weights: dict[str, float]
    path_length: int

    @cached_property
    def terms(self) -> dict[str, Tensor]:
        """Unweighted terms by name, each averaged over the path: ``[G, P]``."""
        return {name: value.mean(-1) if value.dim() == 3 else value for name, value in self.raw.items()}

    @cached_property
    def total(self) -> Tensor:
        """Weighted sum of the terms, the path reward: ``[G, P]``."""
        return torch.stack([self.weights[name] * value for name, value in self.terms.items()]).sum(0)

    def _payment(self, value: Tensor) -> Tensor:
        if value.dim() == 3:
            return value / self.path_length
        return F.pad(value[..., None], (self.path_length - 1, 0))

    @cached_property
    def payments(self) -> Tensor:
        """What each term pays for each decision, unweighted: ``[terms, G, P, L]``, in the order of `raw`.

        Clip terms are paid at their step, divided by L, path terms at the last step, so that the sum over L is
        `terms`, and the sum of weight · payment over the terms is `per_decision`.
        """
        return torch.stack([self._payment(value) for value in self.raw.values()])

    @cached_property
    def per_decision(self) -> Tensor:
        """What each step pays, ``[G, P, L]``; the sum over L is `total`."""
        paid = (self.weights[name] * self._payment(value) for name, value in self.raw.items())
        return _sum(paid)

    @cached_property
    def by_clip(self) -> Tensor:
        """The weighted clip terms of each decision plus the weighted path terms of its path: ``[G, P, L]``.

        Its mean over L is `total`.
        """
        spread = (value if value.dim() == 3 else value[..., None] for value in self.raw.values())
        summed = _sum(self.weights[name] * value for name, value in zip(self.raw, spread, strict=True))
        return summed.expand(*summed.shape[:2], self.path_length)


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    first, *others = tensors
    for tensor in others:
        first = first + tensor
    return first


class VaporReward:
    """The weighted sum of named reward terms.

    The five terms of the supplement are on; `further_terms` are off until ``weights`` names them (a weight of 0 then
    measures and reports a term without paying for it); custom terms are plain functions under the contract of
    `term_contract`. Terms come in that order, and more of each is better.

    Args:
        weights: weight by term name; a term not named here keeps its default weight (1 for the five built-in terms
            and for every custom term, off for further terms). ``weights={"diversity": 0, "log_mse": 0.5}`` switches
            one term off and another on. Or one weight a term, for the five and the custom terms in order.
        n_threshold: below this many tokens `penalty` starts; K / 8 by default.
        penalty_power: exponent of `penalty`.
        scale: factor of `reconstruction`. At 60 the term spans about one unit between n = 1 and n = K on nano, as the
            other terms do, so that equal weights mean equal say.
        terms: custom terms, by name or as ``module:name`` strings (named after the function).
        token_budget: tokens a path may keep before `budget_overrun` starts; a quarter of L·K by default.
        perceptual_network: backbone of `lpips`: ``vgg``, ``alex`` or ``squeeze``.
        perceptual_backbone: file with the weights of that backbone; torch's cache by default.

    Raises:
        ValueError: a weight is for an unknown term or not a finite number, there are too many or too few of them, a
            constant is out of range, or a custom term has a taken name, does not import or is no function.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        *,
        n_threshold: int | None = None,
        penalty_power: float = 2.0,
        scale: float = 60.0,
        terms: Mapping[str, RewardTerm | str] | Sequence[str] = (),
        token_budget: int | None = None,
        perceptual_network: PerceptualNetwork = "vgg",
        perceptual_backbone: str | Path | None = None,
    ) -> None:
        if n_threshold is not None and n_threshold < 1:
            raise ValueError(f"Expected n_threshold ≥ 1, got {n_threshold}; pass None for K / 8.")
        if token_budget is not None and token_budget < 1:
            raise ValueError(f"Expected token_budget ≥ 1, got {token_budget}; pass None for a quarter of L·K.")
        if not (penalty_power > 0 and math.isfinite(penalty_power) and scale >= 0 and math.isfinite(scale)):
            raise ValueError(
                f"Expected finite penalty_power > 0 and scale ≥ 0, got {penalty_power} and {scale}; correct them."
            )
        self.n_threshold = n_threshold
        self.penalty_power = penalty_power
        self.scale = scale
        self.token_budget = token_budget
        self.perceptual_network = perceptual_network
        self.perceptual_backbone = perceptual_backbone
        known: dict[str, RewardTerm] = {
            "efficiency": efficiency,
            "penalty": self._penalty,
            "diversity": diversity,
            "reconstruction": self._reconstruction,
            "generation": generation,
            "log_mse": log_mse,
            "lpips": lpips,
            "prior_bits": prior_bits,
            "codebook_usage": codebook_usage,
            "budget_overrun": self._budget_overrun,
        }
        named = weights if isinstance(weights, Mapping) else {}
        self._terms = {name: term for name, term in known.items() if name not in FURTHER_TERMS or name in named}
        self._terms |= _custom_terms(terms, taken=known)
        self.weights: dict[str, float] = dict.fromkeys(self._terms, 1.0) | DEFAULT_WEIGHTS
        self.weights |= self._checked_weights(weights)

    @classmethod
    def preset(cls, preset: str, weights: Mapping[str, float] | None = None, **settings: Any) -> VaporReward:
        """A reward under a named weighting; see `PRESETS` in `reward_presets`.

        Args:
            preset: ``paper`` (the default reward) or ``quality``.
            weights: of single terms, in place of the preset's.
            **settings: further arguments of the constructor.

        Raises:
            ValueError: there is no such preset, or as for the constructor.
        """
        return cls({**preset_weights(preset), **(weights or {})}, **settings)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(self._terms)

    @property
    def needs(self) -> frozenset[str]:
        """What the terms read in ``outcome.measures``."""
        return frozenset().union(*(needs_of(term) for term in self._terms.values()))

    def distances(self, device: str | torch.device = "cpu") -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """The networks behind the terms, for ``ScoringEngine(distances=)``; loaded here, only if a term needs them.

        Raises:
            FileNotFoundError: the backbone's weights are not there.
        """
        if "lpips" not in self.needs:
            return {}
        return {"lpips": PerceptualDistance(self.perceptual_network, self.perceptual_backbone).to(device)}

    def with_weights(self, weights: Mapping[str, float] | Sequence[float]) -> VaporReward:
        """The same terms under other weights; a term not named keeps its weight.

        Raises:
            ValueError: as for the constructor; further terms cannot be switched on here.
        """
        changed = copy.copy(self)
        changed.weights = self.weights | self._checked_weights(weights)
        return changed

    def dry_run(self, path_length: int, tokens: int, device: str | torch.device = "cpu") -> RewardResult:
        """Tries every term on made-up outcomes with the fewest and the most tokens, before anything depends on it.

        Args:
            path_length: L.
            tokens: K.
            device: where outcomes will be.

        Returns:
            The reward of that outcome; ``raw[name].dim()`` tells clip terms (3) from path terms (2).

        Raises:
            ValueError: a term raises or breaks the contract of `term_contract`; the message names it.
        """
        outcome = synthetic_outcome(path_length, tokens, device, self.needs)
        raw = {name: dry_run_term(name, term, outcome) for name, term in self._terms.items()}
        return RewardResult(raw, dict(self.weights), path_length)

    def _penalty(self, outcome: Outcome) -> Tensor:
        return penalty(outcome, self.n_threshold or max(1, outcome.tokens // 8), self.penalty_power)

    def _reconstruction(self, outcome: Outcome) -> Tensor:
        return reconstruction(outcome, self.scale)

    def _budget_overrun(self, outcome: Outcome) -> Tensor:
        quarter = max(1, outcome.n_tokens.shape[-1] * outcome.tokens // 4)
        return budget_overrun(outcome, self.token_budget or quarter)

    def _checked_weights(self, weights: Mapping[str, float] | Sequence[float] | None) -> dict[str, float]:
        if weights is None:
            return {}
        if not isinstance(weights, Mapping):
            values = list(weights)
            if len(values) != len(self._terms):
                raise ValueError(
                    f"Expected {len(self._terms)} weights, for {', '.join(self._terms)}; got {len(values)}; pass a "
                    "mapping to name only some."
                )
            weights = dict(zip(self._terms, values, strict=True))
        for name, weight in weights.items():
            if name not in self._terms:
                hint = did_you_mean(name, [*self._terms, *FURTHER_TERMS], "pass the term itself in terms=.")
                if name in FURTHER_TERMS:
                    hint = "weight it when the reward is made."
                raise ValueError(f"Expected weights for {', '.join(self._terms)}; got unknown term {name!r}; {hint}")
            if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
                raise ValueError(f"Expected a finite weight for {name!r}, got {weight!r}; use 0 to switch a term off.")
        return {name: float(weight) for name, weight in weights.items()}

    def __call__(self, outcome: Outcome) -> RewardResult:
        """Evaluates all terms.

        Raises:
            ValueError: a term did not return a float ``[G, P, L]`` or ``[G, P]`` tensor on the outcome's device, or
                the outcome lacks a measure.
        """
        raw = {name: evaluate_term(name, term, outcome) for name, term in self._terms.items()}
        return RewardResult(raw, dict(self.weights), outcome.n_tokens.shape[-1])

    def describe(self) -> dict[str, Any]:
        """Plain data for run folders: weights and constants."""
        return {
            "weights": dict(self.weights),
            "n_threshold": self.n_threshold,
            "penalty_power": self.penalty_power,
            "scale": self.scale,
            "token_budget": self.token_budget,
            "perceptual_network": self.perceptual_network,
            "perceptual_backbone": None if self.perceptual_backbone is None else str(self.perceptual_backbone),
        }


def _custom_terms(
    terms: Mapping[str, RewardTerm | str] | Sequence[str], taken: Mapping[str, RewardTerm]
) -> dict[str, RewardTerm]:
    """Custom terms by name, imported where they are given as ``module:name``."""
    named = terms.items() if isinstance(terms, Mapping) else [(path.rpartition(":")[2], path) for path in terms]
    found: dict[str, RewardTerm] = {}
    for name, term in named:
        if name in taken or name in found:
            raise ValueError(f"Expected a new name for a custom reward term, got {name!r} twice; rename one.")
        found[name] = load_term(term) if isinstance(term, str) else term
        if not callable(found[name]):
            raise ValueError(
                f"Expected a function or 'module:name' as reward term {name!r}, got {type(term).__name__}; see "
                "vaportok_rl.envs.rewards.contract."
            )
    return found


def build_reward(reward: VaporReward | Mapping[str, Any] | None) -> VaporReward:
    """A reward from itself, from keyword arguments as plain data (and a ``preset``), or the default.

    Raises:
        ValueError: the mapping has a key that `VaporReward` does not know.
    """
    if reward is None:
        return VaporReward()
    if isinstance(reward, VaporReward):
        return reward
    known = ("preset", *inspect.signature(VaporReward).parameters)
    for key in reward:
        if key not in known:
            hint = did_you_mean(key, known, "see VaporReward.")
            raise ValueError(f"Expected reward settings among {', '.join(known)}; got {key!r}; {hint}")
    return VaporReward.preset(**reward) if "preset" in reward else VaporReward(**reward)
