"""Policies that need no training: a scene in, lengths out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import Scene, TaildropProcess

AGENT_FILE = "agent.zip"


@dataclass(frozen=True)
class LengthChoice:
    """What a policy decides about a scene.

    Attributes:
        n_tokens: ``int64 [P, L]`` in 1 … K.
        log_prob: ``float32 [P, L]``, log-probability of the choice; NaN where the policy has none.
    """

    n_tokens: Tensor
    log_prob: Tensor

    @classmethod
    def certain(cls, n_tokens: Tensor) -> LengthChoice:
        """A choice without a probability."""
        return cls(n_tokens, torch.full(n_tokens.shape, torch.nan, device=n_tokens.device))


LengthPolicy = Callable[[Scene, torch.Generator], LengthChoice]


def random_lengths(scene: Scene, generator: torch.Generator) -> LengthChoice:
    """Uniform over 1 … K."""
    device = scene.codes.device
    # The generator is a host one; drawing there keeps the lengths the same on every device.
    drawn = torch.randint(1, scene.tokens + 1, scene.shape, generator=generator).to(device)
    return LengthChoice(drawn, torch.full(scene.shape, -math.log(scene.tokens), device=device))


def fixed_lengths(n_tokens: int, tokens: int) -> LengthPolicy:
    """The same length for every clip.

    Raises:
        ValueError: the length is outside 1 … K.
    """
    if not 1 <= n_tokens <= tokens:
        raise ValueError(f"Expected a fixed length in 1…{tokens}, got {n_tokens}; write fixed:{tokens} to keep all.")

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        return LengthChoice.certain(torch.full(scene.shape, n_tokens, device=scene.codes.device))

    return policy


def most_probable(log_probs: Callable[[Tensor], Tensor]) -> LengthPolicy:
    """The argmax of a policy's distribution, the supplement's rule at inference."""

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        best = log_probs(scene.latents).max(-1)
        return LengthChoice(best.indices + 1, best.values)

    return policy


def pretrained_log_probs(process: TaildropProcess) -> Callable[[Tensor], Tensor]:
    """Log-probabilities of the world's own taildrop module: ``[..., K, D]`` to ``[..., K]``."""

    def log_probs(latents: Tensor) -> Tensor:
        flat = process.engine.world.taildrop(latents.flatten(0, -3)).logits
        return flat.view(*latents.shape[:-2], -1)

    return log_probs


def best_for_each_clip(process: TaildropProcess) -> LengthPolicy:
    """The oracle: scores every length of every clip and takes the best path; see `oracle_lengths`."""

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        return LengthChoice.certain(oracle_lengths(process.engine.score_all(scene), process.reward))

    return policy


def load_agent(path: Path) -> TaildropPolicy:
    """The trained policy of a run folder or an agent file.

    Raises:
        FileNotFoundError: there is no agent.
    """
    from vaportok_rl.agents.grpo import GRPO

    file = path / AGENT_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected an agent at {file}, found none; give a run folder that `vaportok-rl train` wrote, or its "
            f"{AGENT_FILE}."
        )
    return GRPO.load(file, env=None, device="cpu").policy


def build_length_policy(spec: str, process: TaildropProcess) -> LengthPolicy:
    """A policy by name.

    Args:
        spec: ``random``, ``fixed:N``, ``argmax`` (of the pretrained taildrop module), ``oracle``, or the path of a
            run folder or agent file.
        process: the decision process it will be used on.

    Raises:
        ValueError: there is no such policy, or N is not a length.
        FileNotFoundError: a path without an agent.
    """
    if spec == "random":
        return random_lengths
    if spec == "argmax":
        return most_probable(pretrained_log_probs(process))
    if spec == "oracle":
        return best_for_each_clip(process)
    name, colon, value = spec.partition(":")
    if name == "fixed" and colon:
        if not value.isdecimal():
            raise ValueError(f"Expected fixed:N with a whole number N, got {spec!r}; for example fixed:16.")
        return fixed_lengths(int(value), process.tokens)
    path = Path(spec).expanduser()
    if path.exists():
        policy = load_agent(path).to(process.engine.world.device)
        policy.set_training_mode(False)
        return most_probable(policy.length_log_probs)
    close = difflib.get_close_matches(name, ("random", "fixed", "argmax", "oracle"), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "check the path."
    raise ValueError(
        f"Expected a policy random, fixed:N, argmax, oracle or the path of a trained agent, got {spec!r}; {hint}"
    )
