"""Samples tokens from logits: classifier-free guidance, temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, Range, check_fields


@dataclass(frozen=True)
class SamplingOptions:
    """Options of sampling; the defaults are the model's own distribution."""

    guidance: Annotated[float, NOT_NEGATIVE] = 1.0
    """Classifier-free guidance: 1 is the class's own distribution, more goes further away from that of no class."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Divides the logits; below 1 the likely tokens become likelier."""
    top_k: Annotated[int | None, AT_LEAST_1] = None
    """Draw among the k most probable tokens only."""
    top_p: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Draw among the fewest tokens whose probabilities reach p in sum (nucleus sampling)."""

    def __post_init__(self) -> None:
        check_fields(self)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022) on logits of equal shape."""
    return unconditional + guidance * (conditional - unconditional)


def token_probabilities(logits: Tensor, options: SamplingOptions) -> Tensor:
    """The distribution that tokens are sampled from.

    Args:
        logits: ``float [B, V + 1]``, guided; -inf for impossible tokens.
        options: temperature, then top-k, then top-p.

    Returns:
        ``float32 [B, V + 1]``, each row with sum 1.
    """
    probabilities = (logits.float() / options.temperature).softmax(-1)
    if options.top_k is None and options.top_p >= 1:
        return probabilities
    ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    if options.top_k is not None:
        ordered[:, options.top_k :] = 0
    # A token is kept while the more probable ones do not reach p; the first is always kept.
    before = ordered.cumsum(-1) - ordered
    ordered = torch.where(before < options.top_p * ordered.sum(-1, keepdim=True), ordered, 0)
    kept = torch.zeros_like(ordered).scatter(-1, order, ordered)
    return kept / kept.sum(-1, keepdim=True)


def draw_tokens(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Samples one token per row by inverting the distribution, so that a row depends only on its own random number.

    Args:
        probabilities: ``float32 [B, V + 1]``.
        uniform: ``[B]`` in [0, 1).

    Returns:
        ``int64 [B]``, never a token of probability 0.
    """
    cumulative = probabilities.cumsum(-1)
    drawn = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)
    possible = torch.where(probabilities > 0, torch.arange(probabilities.shape[1], device=drawn.device), 0)
    # Rounding may select an impossible token: the possible one before it, or else the first, is taken instead.
    before = possible.cummax(-1).values.gather(1, drawn.clamp(max=probabilities.shape[1] - 1)[:, None]).squeeze(1)
    reachable = probabilities.gather(1, before[:, None]).squeeze(1) > 0
    return torch.where(reachable, before, probabilities.argmax(-1))
