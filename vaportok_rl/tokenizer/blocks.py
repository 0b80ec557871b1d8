"""Pre-norm transformer blocks; parameter names follow the LARP checkpoint format."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vaportok_rl.tokenizer.attention import attend


class Attention(nn.Module):
    """Multi-head self-attention with a fused, bias-free qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """Attends over a sequence.

        Args:
            x: ``[B, N, D]``.
            visible: ``bool [B, N]``, keys that may be attended to; None for all.
            wanted: which M positions are queries; all by default. All positions are keys.

        Returns:
            ``[B, M, D]``.
        """
        if wanted is None:
            q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        else:
            width = x.shape[-1]
            query_weight, key_value_weight = self.qkv.weight.split([width, 2 * width])
            q = rearrange(F.linear(x[:, wanted], query_weight), "b n (h e) -> b h n e", h=self.heads)
            k, v = rearrange(F.linear(x, key_value_weight), "b n (two h e) -> two b h n e", two=2, h=self.heads)
        attended = attend(q, k, v, None if visible is None else visible[:, None, None, :])
        out: Tensor = self.proj(rearrange(attended, "b h n e -> b n (h e)"))
        return out


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """One pre-norm block: attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """``[B, N, D]`` to ``[B, M, D]``; see `Attention.forward` for the arguments."""
        x = (x if wanted is None else x[:, wanted]) + self.attn(self.norm1(x), visible, wanted)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A stack of blocks without a final norm."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """Runs the stack.

        Args:
            x: ``[B, N, D]``.
            visible: see `Attention.forward`.
            wanted: the M positions whose outputs are wanted, all by default; the last block computes no others.

        Returns:
            ``[B, M, D]``.
        """
        last = len(self.blocks) - 1
        for place, block in enumerate(self.blocks):
            x = block(x, visible, wanted if place == last else None)
        return x
