"""Policies that need no training: a scene in, lengths out.

A policy chooses among all lengths 1 … K. Where an environment has a token range or a budget, it keeps the nearest
length that these allow (`TokenRange`), whatever the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.tokenizer.error_threshold import Search, check_error_threshold
from vaportok_rl.tokenizer.lengths import inference_lengths


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


def pretrained_lengths(process: TaildropProcess) -> LengthPolicy:
    """What the pretrained tokenizer keeps by itself, by the strategy it was trained with; see `inference_lengths`.

    A ``naive`` tokenizer keeps all tokens without asking its taildrop module, and that choice has no probability.
    """
    log_probs, strategy = pretrained_log_probs(process), process.engine.config.taildrop.strategy

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        log_p = log_probs(scene.latents)
        lengths = inference_lengths(log_p.flatten(0, 1), strategy).view(scene.shape)
        if strategy == "naive":
            return LengthChoice.certain(lengths)
        return LengthChoice(lengths, log_p.gather(-1, lengths[..., None] - 1).squeeze(-1))

    return policy


def complexity_lengths(process: TaildropProcess) -> LengthPolicy:
    """The mean of the Gaussian prior over lengths, rounded: more tokens for the more complex clip, nothing learnt."""
    scale = process.engine.complexity_scale

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        # The most probable length is the one next to the mean.
        best = scale.gaussian_prior(scene.complexity).max(-1)
        return LengthChoice(best.indices + 1, best.values)

    return policy


def threshold_lengths(process: TaildropProcess, threshold: float, search: Search = "linear") -> LengthPolicy:
    """The fewest tokens that reconstruct each clip well enough, as ElasticTok (arXiv 2410.08368) chooses them.

    The answers are those of `lengths_under_error`, found through the engine: where lengths have been scored already, or
    are in an outcome table, nothing is decoded.

    Args:
        process: its engine measures the errors.
        threshold: largest mean squared error allowed, of pixel values in [0, 1].
        search: ``linear`` scores every length, in the batches that a rollout reports; ``binary`` scores ⌈log2 K⌉ of
            them and supposes that the error never rises with n.

    Raises:
        ValueError: the threshold is negative or not finite.
    """
    check_error_threshold(threshold)
    engine = process.engine

    def linear(scene: Scene, generator: torch.Generator) -> LengthChoice:
        met = engine.score_all(scene).mse <= threshold
        met[-1] = True
        return LengthChoice.certain(met.int().argmax(0) + 1)

    def binary(scene: Scene, generator: torch.Generator) -> LengthChoice:
        low, high = torch.ones_like(scene.ids), torch.full_like(scene.ids, process.tokens)
        for _ in range((process.tokens - 1).bit_length()):
            middle = (low + high) // 2
            met = engine.score(scene, middle[None]).mse[0] <= threshold
            low, high = torch.where(met, low, middle + 1), torch.where(met, middle, high)
        return LengthChoice.certain(high)

    return linear if search == "linear" else binary


def best_for_each_clip(process: TaildropProcess) -> LengthPolicy:
    """The oracle: scores every length of every clip and takes the best path that is allowed; see `oracle_lengths`."""

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        every = process.engine.score_all(scene)
        return LengthChoice.certain(oracle_lengths(every, process.reward, allowed=process.token_range))

    return policy
