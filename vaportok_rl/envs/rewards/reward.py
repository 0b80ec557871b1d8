"""`VaporReward`: the weighted sum of the paper's five terms, optional terms and custom terms (see `contract`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.envs.rewards.contract import (
    SHIPPED_MEASURES,
    PixelTerm,
    RewardTerm,
    dry_run_pixel_term,
    dry_run_term,
    evaluate_term,
    load_term,
    looks_across_group,
    mixed_lengths,
    named_functions,
    needs,
    needs_of,
    synthetic_outcome,
)
from vaportok_rl.envs.rewards.dynamics import (
    OF_OUTCOMES,
    Constraint,
    RewardState,
    Schedule,
    as_weight,
    checked_number,
)
from vaportok_rl.envs.rewards.presets import PRESETS, RewardOptions, resolved
from vaportok_rl.envs.rewards.terms import FIVE_TERMS, FURTHER_TERMS
from vaportok_rl.envs.scene import Outcome
from vaportok_rl.runtime.messages import did_you_mean

Weight = float | Schedule | str
Scalarisation = Callable[[Mapping[str, Tensor]], Tensor]
SCALARISED = "scalarised"


@dataclass(frozen=True)
class RewardResult:
    """The reward of an outcome; properties are computed from `raw` on first use.

    Attributes:
        raw: unweighted terms as returned by the functions, ``[G, P, L]`` (clip terms) or ``[G, P]`` (path terms).
        weights: by term; the multiplier of a constraint is a tensor ``[]`` on the device.
        path_length: L.
    """

    raw: dict[str, Tensor]
    weights: Mapping[str, float | Tensor]
    path_length: int

    @cached_property
    def terms(self) -> dict[str, Tensor]:
        """Unweighted terms by name, each averaged over the path: ``[G, P]``."""
        return {name: value.mean(-1) if value.dim() == 3 else value for name, value in self.raw.items()}

    @cached_property
    def total(self) -> Tensor:
        """Weighted sum of the terms, the path reward: ``[G, P]``."""
        return torch.stack([self.weights[name] * value for name, value in self.terms.items()]).sum(0)

    @cached_property
    def weight_vector(self) -> Tensor:
        """The weights, ``float32 [terms]`` on the device, in the order of `raw`."""
        values = [self.weights[name] for name in self.raw]
        device = next(iter(self.raw.values())).device
        fixed = torch.tensor([0.0 if isinstance(value, Tensor) else value for value in values])
        fixed = fixed.to(device, non_blocking=True)
        learnt = {place: value for place, value in enumerate(values) if isinstance(value, Tensor)}
        return torch.stack([learnt.get(place, entry) for place, entry in enumerate(fixed)]) if learnt else fixed

    def _payment(self, value: Tensor) -> Tensor:
        if value.dim() == 3:
            return value / self.path_length
        return F.pad(value[..., None], (self.path_length - 1, 0))

    @cached_property
    def payments(self) -> Tensor:
        """The unweighted payment of each term per decision: ``[terms, G, P, L]``, in the order of `raw`.

        Clip terms are paid at their step, divided by L, path terms at the last step, so that the sum over L is
        `terms`, and the sum of weight · payment over the terms is `per_decision`.
        """
        return torch.stack([self._payment(value) for value in self.raw.values()])

    @cached_property
    def per_decision(self) -> Tensor:
        """The reward per decision, ``[G, P, L]``; its sum over L is `total`."""
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
    """The weighted sum of named reward terms. It is immutable: use `dataclasses.replace` for another.

    The paper's five terms are always on. Optional ones (`FURTHER_TERMS`) are added when ``weights`` names them; a
    weight of 0 then measures and reports a term without rewarding it. Custom terms are plain functions; see `contract`.
    Terms come in that order. For options and presets see `RewardOptions` and `PRESETS`.

    Only its `state` changes: the number of training decisions (by environments of the training split, or by GRPO),
    which schedules depend on, and the multiplier of a constraint. Environments share the state of a common reward
    object; environments made from a mapping have their own.

    Args:
        weights: weight by term name: a number, a function of the number of decisions, or text for `Ramp`,
            ``"0:3@1000:5000"``. Other terms keep the preset's weight; custom ones have 1.
            ``weights={"diversity": 0, "log_mse": 0.5}`` switches one term off and another on.
        terms: custom terms by name, or functions or ``module:name`` strings, named after the function.
        pixel_terms: pixel terms, in the same forms. Each is a measure (`Outcome.measures`) and a term of that name.
        scalarise: replaces the weighted sum by a function of a path's terms, ``float32 [G, P]`` by name, to ``[G, P]``;
            a function or ``module:name``. What it returns is the path term ``scalarised``, with weight 1, and all other
            weights are 0 unless ``weights`` names them.

    Raises:
        ValueError: a weight is for an unknown term or not a finite number, a constant is out of range, or a custom
            term has a taken name, does not import or is no function.

    Attributes:
        functions: the terms by name, in order, constants filled in; without ``scalarised``.
        state: see above.
    """

    weights: Mapping[str, Weight] = field(default_factory=dict)
    terms: Mapping[str, RewardTerm | str] | Sequence[RewardTerm | str] = field(default=(), kw_only=True)
    pixel_terms: Mapping[str, PixelTerm | str] | Sequence[PixelTerm | str] = field(default=(), kw_only=True)
    scalarise: Scalarisation | str | None = field(default=None, kw_only=True)
    functions: Mapping[str, RewardTerm] = field(init=False, repr=False)
    state: RewardState = field(init=False, repr=False, default_factory=RewardState)

    def __post_init__(self) -> None:
        constants = resolved(self)
        weights = self.weights or {}
        if not isinstance(weights, Mapping):
            raise ValueError(
                f"Expected weights by term name, got {weights!r}; for example weights={{'diversity': 0.5}}."
            )
        custom, pixels = named_functions(self.terms, "terms"), named_functions(self.pixel_terms, "pixel_terms")
        _check_names([*custom, *pixels])
        shipped = FIVE_TERMS | {name: term for name, term in FURTHER_TERMS.items() if name in weights}
        functions = {name: _bound(term, constants) for name, term in shipped.items()} | custom
        functions |= {name: _measured(name) for name in pixels}
        constraint = _constraint(constants, pixels)
        if constraint is not None:
            functions[constraint.term] = constraint
        scalarise = load_term(self.scalarise) if isinstance(self.scalarise, str) else self.scalarise
        if scalarise is not None and not callable(scalarise):
            raise ValueError(
                f"Expected scalarise as a function of a path's terms or 'module:name', got {scalarise!r}; see "
                "VaporReward."
            )
        usual = dict.fromkeys(functions, 1.0) | dict(PRESETS[self.preset].weights)
        if scalarise is not None:
            usual = dict.fromkeys(functions, 0.0) | {SCALARISED: 1.0}
        if constraint is not None:
            usual.pop(constraint.term)
        merged = usual | {name: as_weight(name, value) for name, value in _known(weights, usual).items()}
        for name, term in functions.items():
            unknown = needs_of(term) - {*SHIPPED_MEASURES, *pixels}
            if unknown:
                hint = did_you_mean(min(unknown), [*SHIPPED_MEASURES, *pixels], "or pass it in pixel_terms=.")
                raise ValueError(
                    f"Expected reward term {name!r} to need measures among {', '.join((*SHIPPED_MEASURES, *pixels))}, "
                    f"got {', '.join(sorted(unknown))}; {hint}"
                )
        made = constants | {
            "terms": MappingProxyType(custom),
            "pixel_terms": MappingProxyType(pixels),
            "weights": MappingProxyType(merged),
            "functions": MappingProxyType(functions),
            "scalarise": scalarise,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        given = {part.name: getattr(self, part.name) for part in fields(self) if part.init}
        plain = {name: dict(given[name]) for name in ("weights", "terms", "pixel_terms")}
        return _remade, (given | plain, self.state.as_numbers())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return (*self.functions, SCALARISED) if self.scalarise is not None else tuple(self.functions)

    @property
    def needs(self) -> frozenset[str]:
        """The measures (``outcome.measures``) that the terms read."""
        return frozenset().union(*(needs_of(term) for term in self.functions.values()))

    @property
    def pixel_functions(self) -> Mapping[str, PixelTerm]:
        """The custom pixel terms by name."""
        return self.pixel_terms  # type: ignore[return-value]  # made a mapping of functions

    @property
    def held(self) -> Constraint | None:
        """The constraint, if there is one."""
        found = [term for term in self.functions.values() if isinstance(term, Constraint)]
        return found[0] if found else None

    @property
    def looks_across_groups(self) -> bool:
        """Whether some term compares the paths of a group."""
        return any(looks_across_group(term) for term in self.functions.values())

    def weights_now(self) -> dict[str, float]:
        """The current weights as numbers, with schedules and the constraint's multiplier evaluated.

        Raises:
            ValueError: a schedule returned no finite number.
        """
        return {name: self._now(name) for name in self.names}

    def _now(self, name: str) -> float:
        if name not in self.weights:
            return float(self.state.multiplier)
        weight = self.weights[name]
        return checked_number(name, weight(self.state.decisions)) if callable(weight) else float(weight)

    def with_weights(self, weights: Mapping[str, Weight]) -> VaporReward:
        """The same terms with other weights; terms that are not named keep theirs.

        Raises:
            ValueError: as for the constructor; further terms cannot be switched on here.
        """
        changed = {name: as_weight(name, value) for name, value in _known(weights, self.weights).items()}
        made = replace(self, weights=dict(self.weights) | changed)
        made.restore(self.state.as_numbers())
        return made

    def advance(self, result: RewardResult, decisions: int, finished: Tensor | None = None) -> None:
        """Counts training decisions and updates the constraint's multiplier.

        Args:
            result: the reward of these decisions' paths.
            decisions: their number over all paths.
            finished: ``int64 [P']``, the scenes whose paths are complete; all by default.
        """
        self.state.decisions += decisions
        constraint = self.held
        if constraint is not None and (finished is None or len(finished)):
            violation = -result.raw[constraint.term]
            violation = violation if finished is None else violation[:, finished]
            self.state.ascend(violation.mean(), constraint.rate, violation.numel())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the state from `RewardState.as_numbers`."""
        for name, value in state.items():
            setattr(self.state, name, value)

    def dry_run(
        self, path_length: int, tokens: int, device: str | torch.device = "cpu", clip_shape: Sequence[int] | None = None
    ) -> RewardResult:
        """Checks all terms at all lengths on random outcomes.

        Args:
            path_length: L.
            tokens: K.
            device: of the outcomes.
            clip_shape: ``(C, T, H, W)``, to check pixel terms as well.

        Returns:
            The reward of an outcome with minimum and maximum lengths; ``raw[name].dim()`` is 3 for clip terms and 2
            for path and group terms.

        Raises:
            ValueError: a term raises or breaks the contract of `contract`; the message names it.
        """
        for name, pixel_term in self.pixel_functions.items():
            if clip_shape is not None:
                dry_run_pixel_term(name, pixel_term, clip_shape, device)
        for name, term in self.functions.items():
            dry_run_term(name, term, path_length, tokens, device, self.needs)
        if self.scalarise is not None:
            dry_run_term(
                SCALARISED, lambda outcome: self(outcome).raw[SCALARISED], path_length, tokens, device, self.needs
            )
        return self(synthetic_outcome(mixed_lengths(path_length, tokens), tokens, device, self.needs))

    def __call__(self, outcome: Outcome, grouped: bool = True) -> RewardResult:
        """Evaluates all terms.

        Args:
            outcome: of G paths through each of P scenes.
            grouped: whether the G paths through a scene form a group; else each path is its own group. It only matters
                for group terms.

        Raises:
            ValueError: a term did not return a float ``[G, P, L]`` or ``[G, P]`` tensor on the outcome's device, or
                the outcome lacks a measure.
        """
        if not grouped and self.looks_across_groups:
            group, paths = outcome.n_tokens.shape[:2]
            alone = outcome.rearrange(
                lambda value: value.flatten(0, 1)[None], lambda value: value.repeat(group, *[1] * (value.dim() - 1))
            )
            result = self(alone)
            raw = {name: value[0].unflatten(0, (group, paths)) for name, value in result.raw.items()}
            return RewardResult(raw, result.weights, result.path_length)
        raw = {name: evaluate_term(name, term, outcome) for name, term in self.functions.items()}
        if callable(self.scalarise):
            # Copies: a function that writes into them harms no other term.
            means = {name: value.mean(-1) if value.dim() == 3 else value.clone() for name, value in raw.items()}
            scalarise = self.scalarise
            raw[SCALARISED] = evaluate_term(SCALARISED, lambda _: scalarise(means), outcome)
            if raw[SCALARISED].dim() == 3:
                raise ValueError(
                    f"Expected scalarise to return [G, P] = {tuple(outcome.n_tokens.shape[:2])}, got "
                    f"{tuple(raw[SCALARISED].shape)}; compute it elementwise from the terms' tensors."
                )
        weights: dict[str, float | Tensor] = {}
        for name in raw:
            learnt = name not in self.weights
            weights[name] = self.state.multiplier_on(outcome.mse.device) if learnt else self._now(name)
        return RewardResult(raw, weights, outcome.n_tokens.shape[-1])

    def describe(self) -> dict[str, Any]:
        """Plain data for run folders: the preset, weights, custom terms and all constants."""
        constants = {part.name: getattr(self, part.name) for part in fields(RewardOptions)}
        backbone = self.perceptual_backbone
        return {
            **constants,
            "perceptual_backbone": None if backbone is None else str(backbone),
            "weights": {
                name: value if isinstance(value, float) else _spelt(value) for name, value in self.weights.items()
            },
            "terms": {name: _spelt(term) for name, term in self.terms.items()},  # type: ignore[union-attr]
            "pixel_terms": {name: _spelt(term) for name, term in self.pixel_functions.items()},
            "scalarise": None if self.scalarise is None else _spelt(self.scalarise),
        }


def _remade(given: dict[str, Any], state: dict[str, Any]) -> VaporReward:
    reward = VaporReward(**given)
    reward.restore(state)
    return reward


def _bound(term: Callable[..., Tensor], constants: Mapping[str, Any]) -> RewardTerm:
    """A built-in term with the constants of its keyword parameters."""
    taken = [name for name in inspect.signature(term).parameters if name in constants]
    if not taken:
        return term
    bound = partial(term, **{name: constants[name] for name in taken})
    bound.needs = needs_of(term)  # type: ignore[attr-defined]
    return bound


def _measured(name: str) -> RewardTerm:
    """The reward term of a pixel term's measure."""
    return needs(name)(partial(_measure, name=name))


def _measure(outcome: Outcome, name: str) -> Tensor:
    return outcome.measures[name]


def _constraint(constants: Mapping[str, Any], pixels: Iterable[str]) -> Constraint | None:
    if constants["constraint"] is None:
        return None
    found = Constraint.parse(constants["constraint"], constants["constraint_rate"])
    measures = (*OF_OUTCOMES, *SHIPPED_MEASURES, *pixels)
    if found.measure not in measures:
        hint = did_you_mean(found.measure, measures, "or pass it in pixel_terms=.")
        raise ValueError(
            f"Expected a constraint on a measure among {', '.join(measures)}; got {found.measure!r}; {hint}"
        )
    return found


def _known(weights: Mapping[str, Weight], known: Iterable[str]) -> Mapping[str, Weight]:
    """The weights, checked to be of known terms."""
    known = tuple(known)
    for name in weights:
        if name not in known:
            hint = did_you_mean(str(name), [*known, *FURTHER_TERMS], "pass the term itself in terms=.")
            if name in FURTHER_TERMS:
                hint = "weight it when the reward is made."
            raise ValueError(f"Expected weights for {', '.join(known)}; got unknown term {name!r}; {hint}")
    return weights


def _check_names(names: Sequence[str]) -> None:
    taken = {*FIVE_TERMS, *FURTHER_TERMS, *OF_OUTCOMES, *SHIPPED_MEASURES, SCALARISED}
    for place, name in enumerate(names):
        if name in taken or name in names[:place]:
            raise ValueError(f"Expected a new name for a custom reward term, got {name!r} twice; rename one.")


def _spelt(function: object) -> str:
    """``module:name`` of a function, if it has them; a `Ramp` as text."""
    name = getattr(function, "__qualname__", None)
    return str(function) if name is None else f"{getattr(function, '__module__', '?')}:{name}"


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
