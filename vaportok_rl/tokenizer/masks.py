"""Which tokens may be attended to and which are supervised, given how many are kept (supplement A.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_tokens(n_tokens: Tensor, tokens: int) -> Tensor:
    """Marks the tokens that stay: ``0 … n - 1``.

    Args:
        n_tokens: ``int64 [...]`` in 1 … K.
        tokens: K, or any number of leading tokens to look at.

    Returns:
        ``bool [..., tokens]``.
    """
    return torch.arange(tokens, device=n_tokens.device) < n_tokens[..., None]


def decoder_visible(n_tokens: Tensor, tokens: int, patches: int) -> Tensor:
    """Key mask of the decoder's sequence [latents; patch queries], Figure 2(a).

    A latent past ``n_tokens`` is never attended to, every patch query is. What a dropped position itself computes is
    never read, so hiding keys is the same computation as removing the token.

    Args:
        n_tokens: ``int64 [B]`` in 1 … K.
        tokens: number of latents in the sequence.
        patches: number of patch queries.

    Returns:
        ``bool [B, tokens + patches]``.
    """
    kept = kept_tokens(n_tokens, tokens)
    return torch.cat([kept, kept.new_ones(kept.shape[0], patches)], dim=1)


def prior_supervised(n_tokens: Tensor, tokens: int) -> Tensor:
    """Marks the prior's predictions that count: row j predicts token j + 1, which must be kept.

    The mask goes by the *label's* index; going by the input's index would supervise one dropped token a clip.

    Args:
        n_tokens: ``int64 [...]`` in 1 … K.
        tokens: K.

    Returns:
        ``bool [..., K - 1]``.
    """
    return torch.arange(1, tokens, device=n_tokens.device) < n_tokens[..., None]
