"""Custom length policies: torch modules and plain functions, whose results are checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy
from vaportok_rl.envs import Scene
from vaportok_rl.runtime.user_function import import_by_name

ScriptedPolicy = Callable[[Scene, torch.Generator], LengthChoice | Tensor]
"""From a scene and a seeded host generator to lengths ``int64 [P, L]`` in 1 … K, alone or with log-probabilities."""


ObservationPolicy = Callable[[Tensor], Tensor]
"""From latents ``float32 [B, K, D]``, the environment's observations, to logits ``[B, K]`` or actions ``int64 [B]``."""


def load_callable(path: str) -> LengthPolicy:
    """Imports a policy written as ``module:name``.

    Raises:
        ValueError: another form, or it cannot be imported.
    """
    return checked_policy(import_by_name(path, "policy"), path)


def checked_policy(policy: ScriptedPolicy | ObservationPolicy, name: str | None = None) -> LengthPolicy:
    """Wraps a policy so that its result is checked before anything is scored.

    Args:
        policy: ``(scene, generator) -> LengthChoice`` or lengths ``int64 [P, L]``; or a torch module or a function of
            one argument, from observations (`ObservationPolicy`).
        name: for error messages.

    Returns:
        A policy that returns a `LengthChoice` on the scene's device, or raises a `ValueError`.

    Raises:
        ValueError: the policy cannot be called.
    """
    spoken = name or str(getattr(policy, "__name__", type(policy).__name__))
    if not callable(policy):
        raise ValueError(
            f"Expected a function (scene, generator) -> lengths as policy {spoken!r}, got {type(policy).__name__}; "
            "name a function."
        )

    if isinstance(policy, nn.Module) or arguments_of(policy) == 1:
        return _on_observations(policy, spoken)  # type: ignore[arg-type]  # of one argument

    def checked(scene: Scene, generator: torch.Generator) -> LengthChoice:
        return _checked_choice(policy(scene, generator), scene, spoken)  # type: ignore[call-arg, arg-type]  # of two

    return checked


def arguments_of(policy: Callable[..., object]) -> int | None:
    """How many arguments a function needs; None if it does not say."""
    try:
        parameters = inspect.signature(policy).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.default is one.empty and one.kind in positional for one in parameters)


def _on_observations(policy: ObservationPolicy, name: str) -> LengthPolicy:
    """The most probable lengths of a policy on latents, or those of its actions."""

    @torch.no_grad()
    def chosen(scene: Scene, generator: torch.Generator) -> LengthChoice:
        clips = scene.shape[0] * scene.shape[1]
        found = checked_answer(
            policy(scene.latents.flatten(0, 1)), clips, scene.tokens, f"policy {name!r}", "latents float32 [B, K, D]"
        )
        if found.is_floating_point():
            best = torch.unflatten(found.float().log_softmax(-1), 0, scene.shape).max(-1)
            return _checked_choice(LengthChoice(best.indices + 1, best.values), scene, name)
        return _checked_choice(torch.unflatten(found, 0, scene.shape) + 1, scene, name)

    return chosen


def checked_answer(found: object, clips: int, tokens: int, policy: str, seen: str) -> Tensor:
    """What a policy on observations returned: logits ``float [B, K]`` or actions ``int64 [B]``.

    Args:
        found: the answer.
        clips: B.
        tokens: K.
        policy: what answered, for the message.
        seen: what it was given, for the message.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(found, Tensor):
        if found.is_floating_point() and found.shape == (clips, tokens):
            return found
        if found.dtype == torch.int64 and found.shape == (clips,):
            return found
    got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise ValueError(
        f"Expected {policy} to return logits float [B, K] = {(clips, tokens)} or actions int64 {(clips,)}, got {got}; "
        f"it gets {seen}."
    )


def _checked_choice(choice: object, scene: Scene, name: str) -> LengthChoice:
    if isinstance(choice, Tensor):
        choice = LengthChoice.certain(choice)
    shape = scene.shape
    if not isinstance(choice, LengthChoice):
        raise ValueError(
            f"Expected policy {name!r} to return a tensor int64 [P, L] = {shape} or a LengthChoice, got "
            f"{type(choice).__name__}; convert with torch.as_tensor."
        )
    n_tokens, log_prob = choice.n_tokens, choice.log_prob
    if tuple(n_tokens.shape) != shape or n_tokens.dtype != torch.int64:
        raise ValueError(
            f"Expected policy {name!r} to return lengths int64 [P, L] = {shape}, got {n_tokens.dtype} "
            f"{tuple(n_tokens.shape)}; return one integer per clip."
        )
    if tuple(log_prob.shape) != shape or not log_prob.is_floating_point():
        raise ValueError(
            f"Expected policy {name!r} to return log-probabilities float [P, L] = {shape}, got {log_prob.dtype} "
            f"{tuple(log_prob.shape)}; use LengthChoice.certain(lengths) if it has none."
        )
    if n_tokens.min() < 1 or n_tokens.max() > scene.tokens:
        raise ValueError(
            f"Expected policy {name!r} to return lengths in 1…{scene.tokens}, got {n_tokens.min()}…{n_tokens.max()}; "
            "n_tokens = action + 1."
        )
    device = scene.codes.device
    return LengthChoice(n_tokens.to(device), log_prob.detach().float().to(device))
