"""Scaled dot-product attention, by the fastest of several equal computations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# From this many keys on, bfloat16 attention without gradients is computed in pieces on a CPU.
PIECEWISE_KEYS = 512
# Queries a piece: its scores stay in the cache.
PIECE = 512


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention.

    On a CPU the fused kernel's backward pass in bfloat16 took about four times as long as the explicit products (128
    tokens, two cores), so training there uses the latter. Its forward pass multiplies in bfloat16 no faster than in
    float32, so long sequences are computed in pieces. Everything else uses the fused kernel.

    Args:
        q: ``[B, heads, M, e]``.
        k: ``[B, heads, N, e]``.
        v: ``[B, heads, N, e]``.
        visible: ``bool``, broadcastable to ``[B, heads, M, N]``; keys that may be attended to.
        causal: no position sees a later one; not together with ``visible``, and only with M = N.

    Returns:
        ``[B, heads, M, e]``.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        if torch.is_grad_enabled():
            return explicit_attention(q, k, v, visible, causal)
        if visible is None and k.shape[2] >= PIECEWISE_KEYS:
            return piecewise_attention(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, causal: bool) -> Tensor:
    """The textbook computation; see `attend`."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if visible is not None:
        scores = scores + torch.zeros(visible.shape, dtype=q.dtype, device=q.device).masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ v


def piecewise_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention in pieces of one head and `PIECE` queries, without gradients; see `attend`.

    The scores of a piece are written over those of the one before: memory that is touched for the first time costs more
    than what is computed in it.
    """
    batch, heads, queries, width = q.shape
    q, k, v = (q * (1 / math.sqrt(width))).contiguous(), k.contiguous(), v.contiguous()
    # The layout of the projection that follows, as the fused kernel has it.
    out = q.new_empty(batch, queries, heads, width).transpose(1, 2)
    size = min(PIECE, queries)
    scratch = q.new_empty(2, size * k.shape[2])
    later = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    for start in range(0, queries, PIECE):
        stop = min(queries, start + PIECE)
        seen = stop if causal else k.shape[2]
        raw, weights = scratch[:, : (stop - start) * seen].view(2, stop - start, seen)
        for clip in range(batch):
            for head in range(heads):
                torch.mm(q[clip, head, start:stop], k[clip, head, :seen].T, out=raw)
                if causal:
                    raw[:, start:].masked_fill_(later[: stop - start, : stop - start], -math.inf)
                torch.softmax(raw, -1, out=weights)
                out[clip, head, start:stop] = weights @ v[clip, head, :seen]
    return out
