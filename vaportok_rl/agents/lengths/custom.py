"""Custom length policies: plain functions whose results are checked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy
from vaportok_rl.envs import Scene
from vaportok_rl.runtime.user_function import import_by_name

ScriptedPolicy = Callable[[Scene, torch.Generator], LengthChoice | Tensor]
"""From a scene and a seeded host generator to lengths ``int64 [P, L]`` in 1 … K, alone or with log-probabilities."""


def load_callable(path: str) -> LengthPolicy:
    """Imports a policy written as ``module:name``.

    Raises:
        ValueError: another form, or it cannot be imported.
    """
    return checked_policy(import_by_name(path, "policy"), path)


def checked_policy(policy: ScriptedPolicy, name: str | None = None) -> LengthPolicy:
    """Wraps a policy so that its result is checked before anything is scored.

    Args:
        policy: ``(scene, generator) -> LengthChoice`` or lengths ``int64 [P, L]``.
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

    def checked(scene: Scene, generator: torch.Generator) -> LengthChoice:
        return _checked_choice(policy(scene, generator), scene, spoken)

    return checked


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
