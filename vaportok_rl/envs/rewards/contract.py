"""The contract of reward terms and pixel terms, and the dry runs that check it.

A reward term is a pure function ``Outcome -> Tensor``. It returns

- ``[G, P, L]``, a *clip term*: entry (g, p, l) may depend on clip l of path g through scene p alone;
- ``[G, P]``, a *path term*: entry (g, p) may depend on that path alone; or
- ``[G, P]`` and is decorated with `across_group`, a *group term*: entry (g, p) may depend on all G paths through scene
  p, whose order does not matter. Where paths are scored one by one (held-out scores, the oracle, an environment with
  ``group_size=1``) the group is that one path.

Values are floats on the outcome's device, finite for every length, without gradient, unweighted. More is better. A term
does not write into the outcome. It should not read tensor values on the host (``.item()``, ``if tensor:``), which would
stall an accelerator.

A pixel term is a pure function ``(decoded, clip) -> [B]`` of two ``float32 [B, C, T, H, W]`` videos in [0, 1], each
entry of that pair alone, finite, more is better. It does not write into them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Outcome, Scene
from vaportok_rl.runtime.user_function import import_by_name

RewardTerm = Callable[[Outcome], Tensor]
PixelTerm = Callable[[Tensor, Tensor], Tensor]
# Measures that any reward term may need; see `pixels` and `cumulative_bits`.
SHIPPED_MEASURES = ("bits", "lpips", "ssim")


class NonFiniteRewardError(ValueError):
    """A reward term is NaN or infinite; the message names the term and the clip."""


Term = TypeVar("Term", bound=RewardTerm)
# Paths per dry run.
_CHUNK = 64


def needs(*measures: str) -> Callable[[Term], Term]:
    """Declares what a term reads in ``outcome.measures``; the engine measures only what some term needs.

    Args:
        measures: ``bits``, the prior's negative log-likelihood of the kept tokens; ``lpips``; ``ssim``; or the name of
            a pixel term of the same reward.
    """

    def declare(term: Term) -> Term:
        term.needs = frozenset(measures)  # type: ignore[attr-defined]
        return term

    return declare


def needs_of(term: RewardTerm) -> frozenset[str]:
    """The measures that a term declared with `needs`."""
    declared: frozenset[str] = getattr(term, "needs", frozenset())
    return declared


def across_group(term: Term) -> Term:
    """Declares a group term: its entries ``[G, P]`` may depend on all G paths through a scene."""
    term.across_group = True  # type: ignore[attr-defined]
    return term


def looks_across_group(term: RewardTerm) -> bool:
    """Whether a term was declared with `across_group`."""
    return bool(getattr(term, "across_group", False))


def load_term(path: str) -> Callable[..., Any]:
    """Imports a function written as ``module:name``.

    Raises:
        ValueError: the text is not of that form, the module does not import, or there is no such function in it.
    """
    term = import_by_name(path, "reward term")
    if not callable(term):
        raise ValueError(f"Expected a function at {path!r}, got {type(term).__name__}; name a function.")
    return term  # type: ignore[no-any-return]


def named_functions(
    given: Mapping[str, Callable[..., Any] | str] | Sequence[Callable[..., Any] | str], option: str
) -> dict[str, Callable[..., Any]]:
    """Functions by name, imported where they are given as ``module:name``.

    Raises:
        ValueError: a function has no name, a name is given twice, does not import or is no function.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise ValueError(
            f"Expected {option} as a list of functions or 'module:name', or by name, got {given!r}; for example "
            f"{option}=[my_function]."
        )
    pairs = given.items() if isinstance(given, Mapping) else [(_own_name(term, option), term) for term in given]
    found: dict[str, Callable[..., Any]] = {}
    for name, term in pairs:
        if name in found:
            raise ValueError(f"Expected different names in {option}, got {name!r} twice; rename one.")
        found[name] = load_term(term) if isinstance(term, str) else term
        if not callable(found[name]):
            raise ValueError(
                f"Expected a function or 'module:name' as {name!r} in {option}, got {type(term).__name__}; see "
                "vaportok_rl.envs.rewards.contract."
            )
    return found


def _own_name(term: object, option: str) -> str:
    if isinstance(term, str):
        return term.rpartition(":")[2]
    name = getattr(term, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"Expected a function with a name or 'module:name' in {option}, got {term!r}; pass it by name, "
            f"{option}={{'mine': ...}}."
        )
    return name


def evaluate_term(name: str, term: RewardTerm, outcome: Outcome) -> Tensor:
    """Evaluates a term on an outcome, as ``float32``; checks the result without reading values.

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
    allowed = (shape[:2],) if looks_across_group(term) else (shape, shape[:2])
    if not isinstance(value, Tensor) or tuple(value.shape) not in allowed:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        wanted = " or ".join(f"[{'G, P, L'[: 3 * len(size) - 2]}] = {size}" for size in allowed)
        raise ValueError(
            f"Expected reward term {name!r} to return a tensor {wanted}, got {got}; a term scores clips or whole paths."
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


def synthetic_outcome(n_tokens: Tensor, tokens: int, device: str | torch.device, measures: Collection[str]) -> Outcome:
    """A random outcome of the given lengths ``int64 [G, P, L]``."""
    rng = torch.Generator().manual_seed(0)
    paths, length = n_tokens.shape[1:]

    def values(*shape: int) -> Tensor:
        return torch.rand(shape or n_tokens.shape, generator=rng) * 0.9 + 0.05

    codes = torch.randint(0, tokens, (paths, length, tokens), generator=rng)
    mse, accuracy, complexity = values() * 0.05, values() * (n_tokens > 1), values(paths, length, 2) * 8
    outcome = Outcome(
        scene=Scene.bare(codes, complexity, 1 + complexity.mean(-1) / 8 * (tokens - 1)),
        n_tokens=n_tokens,
        mse=mse,
        accuracy=accuracy,
        measures={name: values() for name in measures},
    )
    return outcome.rearrange(lambda value: value.to(device), lambda value: value.to(device))


def mixed_lengths(path_length: int, tokens: int) -> Tensor:
    """Two paths through each of two scenes, of minimum and maximum lengths: ``int64 [2, 2, L]``."""
    ends = torch.tensor([1, tokens])
    turns = torch.arange(path_length) % 2
    return ends[torch.stack([torch.stack([turns * 0, turns]), torch.stack([turns * 0 + 1, 1 - turns])])]


def _every_length(path_length: int, tokens: int) -> Iterator[Tensor]:
    """Paths of equal lengths, one for each length, in parts ``int64 [G, 1, L]``."""
    for part in torch.arange(1, tokens + 1).split(_CHUNK):
        yield part[:, None, None].expand(-1, 1, path_length).contiguous()


def dry_run_term(
    name: str, term: RewardTerm, path_length: int, tokens: int, device: str | torch.device, measures: Collection[str]
) -> Tensor:
    """Checks a term on random outcomes, at all lengths and on mixed paths.

    Args:
        name: of the term.
        term: the term.
        path_length: L.
        tokens: K.
        device: of the outcomes.
        measures: of the outcomes.

    Returns:
        The term on the outcome of `mixed_lengths`.

    Raises:
        ValueError: the term raises, is not finite, writes into its outcome, or breaks the contract.
    """

    def tried(outcome: Outcome) -> Tensor:
        held = _tensors_of(outcome)
        before = {key: value.clone() for key, value in held.items()}

        def guarded(scored: Outcome) -> Tensor:
            try:
                return term(scored)
            except Exception as error:  # a user's code may raise anything
                raise ValueError(
                    f"Expected reward term {name!r} to score a dry run of {scored.n_tokens.shape[-1]} clips with "
                    f"{scored.tokens} tokens each, got {type(error).__name__}: {error}; correct the term."
                ) from error

        guarded.needs, guarded.across_group = needs_of(term), looks_across_group(term)  # type: ignore[attr-defined]
        value = evaluate_term(name, guarded, outcome)
        for key, kept in before.items():
            if not torch.equal(held[key], kept):
                raise ValueError(
                    f"Expected reward term {name!r} to leave its outcome as it was, got another {key} after it ran; "
                    "work on a copy (.clone()), or without in-place operations."
                )
        broken = ~torch.isfinite(value)
        if broken.any():
            where = outcome.n_tokens[broken][0].tolist()
            raise ValueError(
                f"Expected reward term {name!r} to be finite for all lengths in 1…{tokens}, got "
                f"{value[broken][0].item()} where n_tokens = {where}; guard the division, the root or the logarithm."
            )
        return value

    for lengths in _every_length(path_length, tokens):
        tried(synthetic_outcome(lengths, tokens, device, measures))
    outcome = synthetic_outcome(mixed_lengths(path_length, tokens), tokens, device, measures)
    value = tried(outcome)
    alone = [([0], [0]), ([1], [1])]
    if looks_across_group(term):
        for group, scenes in alone:
            tried(_picked(outcome, group, scenes))
        alone = [([0, 1], [0]), ([0, 1], [1]), ([1, 0], [0, 1])]
    for group, scenes in alone:
        found = tried(_picked(outcome, group, scenes))
        if not torch.allclose(found, value[group][:, scenes], rtol=1e-4, atol=1e-6):
            whole = (
                "the paths through a scene by themselves, in any order, got another value with another scene gone or "
                "the paths turned; avoid randomness and sums over P."
                if looks_across_group(term)
                else "each path by itself, got another value with the other paths gone; avoid randomness and "
                "sums over P, and decorate it with across_group if it compares the G paths of a scene."
            )
            raise ValueError(f"Expected reward term {name!r} to score {whole}")
    if value.dim() == 3:
        for turn in (0, 1):
            kept = torch.arange(value.shape[-1], device=value.device) % 2 == turn
            changed = tried(_with_other_clips(outcome, kept))
            if not torch.allclose(changed[..., kept], value[..., kept], rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"Expected reward term {name!r} [G, P, L] to score each clip by itself, got another value with the "
                    "other clips changed; return [G, P] for what looks across a path."
                )
    return value


def not_finite(terms: Mapping[str, Tensor], n_tokens: Tensor, ids: Tensor) -> str | None:
    """A message that names the first term and clip that are not finite, or None; reads values on the host.

    Args:
        terms: ``[G, P, L]`` or ``[G, P]`` by name.
        n_tokens: ``int64 [G, P, L]``, the lengths that were scored.
        ids: ``int64 [P, L]``, of the clips.
    """
    for name, value in terms.items():
        broken = (~torch.isfinite(value)).nonzero()
        if len(broken):
            group, path, *clip = broken[0].tolist()
            where = (clip[0],) if clip else (slice(None),)
            return (
                f"Expected finite reward terms, got {value[tuple(broken[0])].item()} from {name!r} for clip "
                f"{ids[path][where].tolist()} at n_tokens = {n_tokens[group, path][where].tolist()}; guard its "
                "division, root or logarithm, or look at that clip."
            )
    return None


def _tensors_of(outcome: Outcome) -> dict[str, Tensor]:
    """Every tensor that a term can reach, by name."""
    scene = {field.name: getattr(outcome.scene, field.name) for field in fields(Scene)}
    return {**scene, "n_tokens": outcome.n_tokens, "mse": outcome.mse, "accuracy": outcome.accuracy, **outcome.measures}


def _picked(outcome: Outcome, group: list[int], scenes: list[int]) -> Outcome:
    """Some of the paths through some of the scenes, in the order given."""
    return outcome.rearrange(lambda value: value[group][:, scenes], lambda value: value[scenes])


def _with_other_clips(outcome: Outcome, kept: Tensor) -> Outcome:
    """The outcome with all but the ``kept`` clips (``bool [L]``) swapped between the paths and the scenes."""
    return outcome.rearrange(
        lambda value: torch.where(kept, value, value.flip(0)),
        lambda value: torch.where(kept.view(-1, *[1] * (value.dim() - 2)), value, value.flip(0)),
    )


def dry_run_pixel_term(name: str, term: PixelTerm, clip_shape: Sequence[int], device: str | torch.device) -> None:
    """Checks a pixel term on two random pairs of videos ``[C, T, H, W]``.

    Raises:
        ValueError: the term raises, is not finite, writes into the videos, or depends on other pairs.
    """
    rng = torch.Generator().manual_seed(0)
    decoded, clip = (torch.rand(2, *clip_shape, generator=rng).to(device) for _ in range(2))

    def tried(*videos: Tensor) -> Tensor:
        before = [video.clone() for video in videos]
        try:
            value = term(*videos)
        except Exception as error:  # a user's code may raise anything
            raise ValueError(
                f"Expected pixel term {name!r} to compare two videos {tuple(videos[0].shape)}, got "
                f"{type(error).__name__}: {error}; correct the term."
            ) from error
        if not all(map(torch.equal, videos, before)):
            raise ValueError(
                f"Expected pixel term {name!r} to leave the videos as they were, got other pixels after it ran; work "
                "on a copy (.clone()), or without in-place operations."
            )
        if not isinstance(value, Tensor) or tuple(value.shape) != (len(videos[0]),) or not value.is_floating_point():
            got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected pixel term {name!r} to return floats [B] = ({len(videos[0])},), got {got}; one number for "
                "each pair of videos."
            )
        if not torch.isfinite(value).all():
            raise ValueError(
                f"Expected pixel term {name!r} to be finite, got {value.tolist()} on random videos; "
                "guard the division, the root or the logarithm."
            )
        return value

    together = tried(decoded, clip)
    alone = torch.cat([tried(*pair) for pair in zip(decoded.split(1), clip.split(1), strict=True)])
    if not torch.allclose(alone, together, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"Expected pixel term {name!r} to score each pair of videos by itself, got another value with the other "
            "pair gone; avoid randomness and sums over B."
        )
