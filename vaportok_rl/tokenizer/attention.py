"""Scaled dot-product attention, by the faster of two equal computations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention.

    On a CPU the fused kernel's backward pass in bfloat16 took about four times as long as the explicit products (128
    tokens, two cores), so training there uses the latter; everything else uses the fused kernel.

    Args:
        q: ``[B, heads, N, e]``.
        k: ``[B, heads, N, e]``.
        v: ``[B, heads, N, e]``.
        visible: ``bool``, broadcastable to ``[B, heads, N, N]``; keys that may be attended to.
        causal: no position sees a later one; not together with ``visible``.

    Returns:
        ``[B, heads, N, e]``.
    """
    if torch.is_grad_enabled() and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return explicit_attention(q, k, v, visible, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, causal: bool) -> Tensor:
    """The textbook computation; see `attend`."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if visible is not None:
        scores = scores + torch.zeros(visible.shape, dtype=q.dtype, device=q.device).masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ v
