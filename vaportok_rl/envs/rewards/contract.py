"""The contract of a reward term: how one is named, what it may return, and a dry run that finds what breaks it.

A reward term is a pure function ``Outcome -> Tensor``. It returns

- ``[G, P, L]``, a *clip term*: entry (g, p, l) may depend on clip l of path g through scene p alone; or
- ``[G, P]``, a *path term*: entry (g, p) may depend on that path alone,

as floats on the outcome's device, finite for every length, without gradient, unweighted. More is better. It should not
read tensor values on the host (``.item()``, ``.tolist()``, ``if tensor:``), which would stall an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Outcome, Scene
from vaportok_rl.runtime.user_function import import_by_name

RewardTerm = Callable[[Outcome], Tensor]
MEASURES = ("bits", "lpips")

Term = TypeVar("Term", bound=RewardTerm)


def needs(*measures: str) -> Callable[[Term], Term]:
    """Declares what a term reads in ``outcome.measures``; the engine measures only what some term needs.

    Args:
        measures: among `MEASURES`: ``bits``, the prior's negative log-likelihood of the kept tokens, and ``lpips``.

    Raises:
        ValueError: there is no such measure.
    """
    for name in measures:
        if name not in MEASURES:
            raise ValueError(f"Expected measures among {', '.join(MEASURES)}, got {name!r}; correct it.")

    def declare(term: Term) -> Term:
        term.needs = frozenset(measures)  # type: ignore[attr-defined]
        return term

    return declare


def needs_of(term: RewardTerm) -> frozenset[str]:
    """The measures that a term declared with `needs`."""
    declared: frozenset[str] = getattr(term, "needs", frozenset())
    return declared


def load_term(path: str) -> RewardTerm:
    """Imports a term written as ``module:name``.

    Raises:
        ValueError: the text is not of that form, the module does not import, or there is no such function in it.
    """
    term = import_by_name(path, "reward term")
    if not callable(term):
        raise ValueError(f"Expected a function at {path!r}, got {type(term).__name__}; name a function.")
    return term  # type: ignore[no-any-return]


def evaluate_term(name: str, term: RewardTerm, outcome: Outcome) -> Tensor:
    """What a term makes of an outcome, ``float32``, checked without reading a value.

    Raises:
        ValueError: the outcome lacks a measure, or the term returned something else than the contract says.
    """
    missing = needs_of(term) - outcome.measures.keys()
    if missing:
        raise ValueError(
            f"Expected an outcome with the measures of reward term {name!r}, got none of {', '.join(sorted(missing))}; "
            "score it with a ScoringEngine that was asked for them (bits=, distances=)."
        )
    value = term(outcome)
    shape = tuple(outcome.n_tokens.shape)
    if not isinstance(value, Tensor) or tuple(value.shape) not in (shape, shape[:2]):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"Expected reward term {name!r} to return a tensor [G, P, L] = {shape} or [G, P] = {shape[:2]}, "
            f"got {got}; a term scores clips or whole paths."
        )
    if not value.is_floating_point():
        raise ValueError(f"Expected reward term {name!r} to return floats, got {value.dtype}; end it with .float().")
    if value.device != outcome.mse.device:
        raise ValueError(
            f"Expected reward term {name!r} to return a tensor on {outcome.mse.device}, where the outcome is, got one "
            f"on {value.device}; make new tensors with device=outcome.mse.device."
        )
    if value.requires_grad:
        raise ValueError(
            f"Expected reward term {name!r} to return a tensor without gradient, got one with requires_grad; decorate "
            "it with torch.no_grad()."
        )
    return value.float()


def synthetic_outcome(path_length: int, tokens: int, device: str | torch.device, measures: Collection[str]) -> Outcome:
    """Two paths through each of two scenes that keep the fewest and the most tokens, with made-up figures."""
    ends = torch.tensor([1, tokens])
    turns = torch.arange(path_length) % 2
    n_tokens = ends[torch.stack([torch.stack([turns * 0, turns]), torch.stack([turns * 0 + 1, 1 - turns])])]
    rng = torch.Generator().manual_seed(0)

    def figures(shape: torch.Size | tuple[int, ...] = n_tokens.shape) -> Tensor:
        return torch.rand(shape, generator=rng) * 0.9 + 0.05

    codes = torch.randint(0, tokens, (2, path_length, tokens), generator=rng)
    mse, accuracy, complexity = figures() * 0.05, figures() * (n_tokens > 1), figures((2, path_length, 2)) * 8
    outcome = Outcome(
        scene=Scene.bare(codes, complexity, 1 + complexity.mean(-1) / 8 * (tokens - 1)),
        n_tokens=n_tokens,
        mse=mse,
        accuracy=accuracy,
        measures={name: figures() for name in measures},
    )
    return outcome.rearrange(lambda value: value.to(device), lambda value: value.to(device))


def dry_run_term(name: str, term: RewardTerm, outcome: Outcome) -> Tensor:
    """Tries a term on a `synthetic_outcome`, whose values may be read.

    Raises:
        ValueError: the term raises, breaks the contract, is not finite, or looks where it may not.
    """

    def guarded(scored: Outcome) -> Tensor:
        try:
            return term(scored)
        except Exception as error:  # a term is a stranger's code and may raise anything
            raise ValueError(
                f"Expected reward term {name!r} to score a dry run of {scored.n_tokens.shape[-1]} clips with "
                f"{scored.tokens} tokens each, got {type(error).__name__}: {error}; correct the term."
            ) from error

    value = evaluate_term(name, guarded, outcome)
    broken = ~torch.isfinite(value)
    if broken.any():
        where = outcome.n_tokens[broken][0].tolist()
        raise ValueError(
            f"Expected reward term {name!r} to be finite for all lengths in 1…{outcome.tokens}, got "
            f"{value[broken][0].item()} where n_tokens = {where}; guard the division, the root or the logarithm."
        )
    for member in (0, 1):
        alone = evaluate_term(name, guarded, _single_path(outcome, member))
        if not torch.allclose(alone[0, 0], value[member, member], rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"Expected reward term {name!r} to score each path by itself, got another value with the other paths "
                "gone; keep it free of chance and of sums over G and P."
            )
    if value.dim() == 3:
        for turn in (0, 1):
            kept = torch.arange(value.shape[-1], device=value.device) % 2 == turn
            changed = evaluate_term(name, guarded, _with_other_clips(outcome, kept))
            if not torch.allclose(changed[..., kept], value[..., kept], rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"Expected reward term {name!r} [G, P, L] to score each clip by itself, got another value with the "
                    "other clips changed; return [G, P] for what looks across a path."
                )
    return value


def _single_path(outcome: Outcome, member: int) -> Outcome:
    """Path ``member`` through scene ``member``, alone."""
    row = slice(member, member + 1)
    return outcome.rearrange(lambda value: value[row, row], lambda value: value[row])


def _with_other_clips(outcome: Outcome, kept: Tensor) -> Outcome:
    """The outcome with all but the ``kept`` clips (``bool [L]``) swapped between the paths and the scenes."""
    return outcome.rearrange(
        lambda value: torch.where(kept, value, value.flip(0)),
        lambda value: torch.where(kept.view(-1, *[1] * (value.dim() - 2)), value, value.flip(0)),
    )
