"""The weighted sum of named reward terms: the five of the source, further ones, and custom ones (see `contract`)."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.envs.rewards.contract import (
    RewardTerm,
    dry_run_term,
    evaluate_term,
    load_term,
    needs_of,
    synthetic_outcome,
)
from vaportok_rl.envs.rewards.presets import RewardOptions, find_preset, resolved
from vaportok_rl.envs.rewards.terms import FIVE_TERMS, FURTHER_TERMS
from vaportok_rl.envs.scene import Outcome
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.tokenizer.perceptual import PerceptualDistance


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


@dataclass(frozen=True, eq=False)
class VaporReward(RewardOptions):
    """The weighted sum of named reward terms. It never changes: `dataclasses.replace` makes another.

    The five terms of the source are on. Further ones (`FURTHER_TERMS`) are off until ``weights`` names them; a weight
    of 0 then measures and reports a term without paying for it. Custom terms are plain functions under the contract of
    `contract`. Terms come in that order. The options and their presets: `RewardOptions`, `PRESETS`.

    Args:
        weights: weight by term name; a term not named keeps the preset's weight, 1 if it is a custom one.
            ``weights={"diversity": 0, "log_mse": 0.5}`` switches one term off and another on.
        terms: custom terms by name, or functions or ``module:name`` strings, named after the function.

    Raises:
        ValueError: a weight is for an unknown term or not a finite number, a constant is out of range, or a custom
            term has a taken name, does not import or is no function.

    Attributes:
        functions: the terms by name, in order, constants filled in.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    terms: Mapping[str, RewardTerm | str] | Sequence[RewardTerm | str] = field(default=(), kw_only=True)
    functions: Mapping[str, RewardTerm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        constants = resolved(self)
        custom = _custom_terms(self.terms)
        weights = self.weights or {}
        if not isinstance(weights, Mapping):
            raise ValueError(
                f"Expected weights by term name, got {weights!r}; for example weights={{'diversity': 0.5}}."
            )
        shipped = {name: term for name, term in FURTHER_TERMS.items() if name in weights}
        functions = FIVE_TERMS | shipped | custom
        preset = dict.fromkeys(functions, 1.0) | dict(find_preset(self.preset).weights)
        for name, value in constants.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "terms", MappingProxyType(custom))
        object.__setattr__(self, "weights", MappingProxyType(preset | _checked_weights(weights, functions)))
        bound = {name: _bound(term, constants) for name, term in (FIVE_TERMS | shipped).items()}
        object.__setattr__(self, "functions", MappingProxyType(bound | custom))

    def __reduce__(self) -> tuple[Any, ...]:
        given = {part.name: getattr(self, part.name) for part in fields(self) if part.init}
        return _remade, (given | {"weights": dict(self.weights), "terms": dict(self._custom)},)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(self.weights)

    @property
    def _custom(self) -> Mapping[str, RewardTerm]:
        return {name: term for name, term in self.functions.items() if name not in FIVE_TERMS | FURTHER_TERMS}

    @property
    def needs(self) -> frozenset[str]:
        """What the terms read in ``outcome.measures``."""
        return frozenset().union(*(needs_of(term) for term in self.functions.values()))

    def distances(self, device: str | torch.device = "cpu") -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """The networks behind the terms, for ``ScoringEngine(distances=)``; loaded here, only if a term needs them.

        Raises:
            FileNotFoundError: the backbone's weights are not there.
        """
        if "lpips" not in self.needs:
            return {}
        network = self.perceptual_network or "vgg"
        return {"lpips": PerceptualDistance(network, self.perceptual_backbone).to(device)}

    def with_weights(self, weights: Mapping[str, float]) -> VaporReward:
        """The same terms under other weights; a term not named keeps its weight.

        Raises:
            ValueError: as for the constructor; further terms cannot be switched on here.
        """
        return replace(self, weights=dict(self.weights) | _checked_weights(weights, self.functions))

    def dry_run(self, path_length: int, tokens: int, device: str | torch.device = "cpu") -> RewardResult:
        """Tries every term at every length on made-up outcomes, before anything depends on it.

        Args:
            path_length: L.
            tokens: K.
            device: where outcomes will be.

        Returns:
            The reward of that outcome; ``raw[name].dim()`` tells clip terms (3) from path terms (2).

        Raises:
            ValueError: a term raises or breaks the contract of `contract`; the message names it.
        """
        outcome = synthetic_outcome(path_length, tokens, device, self.needs)
        raw = {name: dry_run_term(name, term, outcome) for name, term in self.functions.items()}
        return RewardResult(raw, dict(self.weights), path_length)

    def __call__(self, outcome: Outcome) -> RewardResult:
        """Evaluates all terms.

        Raises:
            ValueError: a term did not return a float ``[G, P, L]`` or ``[G, P]`` tensor on the outcome's device, or
                the outcome lacks a measure.
        """
        raw = {name: evaluate_term(name, term, outcome) for name, term in self.functions.items()}
        return RewardResult(raw, dict(self.weights), outcome.n_tokens.shape[-1])

    def describe(self) -> dict[str, Any]:
        """Plain data for run folders: the preset, weights, custom terms and every constant."""
        constants = {part.name: getattr(self, part.name) for part in fields(RewardOptions)}
        backbone = self.perceptual_backbone
        return {
            **constants,
            "perceptual_backbone": None if backbone is None else str(backbone),
            "weights": dict(self.weights),
            "terms": {name: _spelt(term) for name, term in self._custom.items()},
        }


def _remade(given: dict[str, Any]) -> VaporReward:
    return VaporReward(**given)


def _bound(term: Callable[..., Tensor], constants: Mapping[str, Any]) -> RewardTerm:
    """A shipped term with the constants that its keyword parameters name."""
    taken = [name for name in inspect.signature(term).parameters if name in constants]
    if not taken:
        return term
    bound = partial(term, **{name: constants[name] for name in taken})
    bound.needs = needs_of(term)  # type: ignore[attr-defined]
    return bound


def _checked_weights(weights: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    known = tuple(known)
    for name, weight in weights.items():
        if name not in known:
            hint = did_you_mean(name, [*known, *FURTHER_TERMS], "pass the term itself in terms=.")
            if name in FURTHER_TERMS:
                hint = "weight it when the reward is made."
            raise ValueError(f"Expected weights for {', '.join(known)}; got unknown term {name!r}; {hint}")
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise ValueError(f"Expected a finite weight for {name!r}, got {weight!r}; use 0 to switch a term off.")
    return {name: float(weight) for name, weight in weights.items()}


def _spelt(term: RewardTerm | str) -> str:
    """``module:name`` of a term, as far as a function has them."""
    return term if isinstance(term, str) else f"{term.__module__}:{getattr(term, '__qualname__', repr(term))}"


def _custom_terms(terms: Mapping[str, RewardTerm | str] | Sequence[RewardTerm | str]) -> dict[str, RewardTerm]:
    """Custom terms by name, imported where they are given as ``module:name``."""
    if isinstance(terms, str) or not isinstance(terms, Mapping | Sequence):
        raise ValueError(
            f"Expected terms as a list of functions or 'module:name', or by name, got {terms!r}; for example "
            "terms=[my_term]."
        )
    named = terms.items() if isinstance(terms, Mapping) else [(_name_of(term), term) for term in terms]
    found: dict[str, RewardTerm] = {}
    for name, term in named:
        if name in FIVE_TERMS or name in FURTHER_TERMS or name in found:
            raise ValueError(f"Expected a new name for a custom reward term, got {name!r} twice; rename one.")
        found[name] = load_term(term) if isinstance(term, str) else term
        if not callable(found[name]):
            raise ValueError(
                f"Expected a function or 'module:name' as reward term {name!r}, got {type(term).__name__}; see "
                "vaportok_rl.envs.rewards.contract."
            )
    return found


def _name_of(term: object) -> str:
    """The name of a term given without one: that of its function."""
    if isinstance(term, str):
        return term.rpartition(":")[2]
    name = getattr(term, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Expected a function with a name or 'module:name' as reward term, got {term!r}; pass terms by name, "
            "terms={'mine': ...}."
        )
    return name


def build_reward(reward: VaporReward | Mapping[str, Any] | None) -> VaporReward:
    """A reward from itself, from keyword arguments as plain data, or the default.

    Raises:
        ValueError: the mapping has a key that `VaporReward` does not know.
    """
    if isinstance(reward, VaporReward):
        return reward
    if reward is not None and not isinstance(reward, Mapping):
        raise ValueError(
            f"Expected reward to be a VaporReward, its keyword arguments or None, got {reward!r}; for example "
            "reward={'preset': 'paper'}."
        )
    known = [part.name for part in fields(VaporReward) if part.init]
    for key in reward or {}:
        if key not in known:
            hint = did_you_mean(str(key), known, "see VaporReward.")
            raise ValueError(f"Expected reward settings among {', '.join(known)}; got {key!r}; {hint}")
    return VaporReward(**(reward or {}))
