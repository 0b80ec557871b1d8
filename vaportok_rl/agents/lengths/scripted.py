"""Policies without training: a scene in, lengths out.

Policies choose among all lengths 1 … K; the environment clips them to its token range and budget (`TokenRange`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.tokenizer.error_threshold import check_error_threshold
from vaportok_rl.tokenizer.lengths import NOISE_COLUMNS, inference_lengths, training_lengths


@dataclass(frozen=True)
class LengthChoice:
    """A policy's lengths for a scene.

    Attributes:
        n_tokens: ``int64 [P, L]`` in 1 … K.
        log_prob: ``float32 [P, L]``, their log-probabilities; NaN if the policy is deterministic.
    """

    n_tokens: Tensor
    log_prob: Tensor

    @classmethod
    def certain(cls, n_tokens: Tensor) -> LengthChoice:
        """A deterministic choice."""
        return cls(n_tokens, torch.full(n_tokens.shape, torch.nan, device=n_tokens.device))


LengthPolicy = Callable[[Scene, torch.Generator], LengthChoice]


def random_lengths(scene: Scene, generator: torch.Generator) -> LengthChoice:
    """Uniform over 1 … K."""
    device = scene.codes.device
    # Drawn on the host, so that all devices get the same lengths.
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
    """The argmax of a policy's distribution (the supplement's inference rule)."""

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        best = log_probs(scene.latents).max(-1)
        return LengthChoice(best.indices + 1, best.values)

    return policy


def pretrained_lengths(process: TaildropProcess) -> LengthPolicy:
    """The pretrained tokenizer's own lengths, by the strategy it was trained with; see `inference_lengths`.

    A ``naive`` tokenizer keeps all tokens without its taildrop module; its log-probabilities are NaN.
    """
    engine, strategy = process.engine, process.engine.config.taildrop.strategy

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        log_p = engine.world.taildrop(scene.latents.flatten(0, 1)).logits.unflatten(0, scene.shape)
        lengths = inference_lengths(log_p.flatten(0, 1), strategy).view(scene.shape)
        if strategy == "naive":
            return LengthChoice.certain(lengths)
        return LengthChoice(lengths, log_p.gather(-1, lengths[..., None] - 1).squeeze(-1))

    return policy


def sampled_lengths(process: TaildropProcess) -> LengthPolicy:
    """Lengths drawn from the pretrained taildrop module's distribution, as the strategy ``sample`` does in training."""
    world = process.engine.world

    @torch.no_grad()
    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        log_p = world.taildrop(scene.latents.flatten(0, 1)).logits
        noise = torch.rand(len(log_p), NOISE_COLUMNS, generator=generator).to(log_p.device)
        drawn = training_lengths(log_p, "sample", noise=noise)
        chosen = LengthChoice(drawn, log_p.gather(-1, drawn[:, None] - 1).squeeze(-1))
        return LengthChoice(chosen.n_tokens.view(scene.shape), chosen.log_prob.view(scene.shape))

    return policy


def complexity_lengths(process: TaildropProcess) -> LengthPolicy:
    """The rounded mean of the Gaussian length prior: more tokens for more complex clips, without learning."""
    scale = process.engine.complexity_scale

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        # The most probable length is the one next to the mean.
        best = scale.gaussian_prior(scene.complexity).max(-1)
        return LengthChoice(best.indices + 1, best.values)

    return policy


def threshold_lengths(process: TaildropProcess, threshold: float, binary: bool = False) -> LengthPolicy:
    """The minimum length that meets an error threshold, as in ElasticTok (arXiv 2410.08368).

    Gives the lengths of `lengths_under_error`, but looks up errors that the engine already has.

    Args:
        process: its engine measures the errors.
        threshold: maximum mean squared error, pixels in [0, 1].
        binary: score ⌈log2 K⌉ lengths, not all K, and assume that the error never rises with n.

    Raises:
        ValueError: the threshold is negative or not finite.
    """
    check_error_threshold(threshold)
    engine = process.engine

    def by_trying_all(scene: Scene, generator: torch.Generator) -> LengthChoice:
        met = engine.score_all(scene).mse <= threshold
        met[-1] = True
        return LengthChoice.certain(met.int().argmax(0) + 1)

    def by_bisection(scene: Scene, generator: torch.Generator) -> LengthChoice:
        low, high = torch.ones_like(scene.ids), torch.full_like(scene.ids, process.tokens)
        for _ in range((process.tokens - 1).bit_length()):
            middle = (low + high) // 2
            met = engine.score(scene, middle[None]).mse[0] <= threshold
            low, high = torch.where(met, low, middle + 1), torch.where(met, middle, high)
        return LengthChoice.certain(high)

    return by_bisection if binary else by_trying_all


def best_for_each_clip(process: TaildropProcess) -> LengthPolicy:
    """The oracle: scores all lengths of every clip and takes the best allowed path; see `oracle_lengths`."""

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        every = process.engine.score_all(scene)
        return LengthChoice.certain(oracle_lengths(every, process.reward, allowed=process.token_range))

    return policy
