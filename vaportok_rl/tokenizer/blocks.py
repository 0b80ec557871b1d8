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

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Attends over a sequence.

        Args:
            x: ``[B, N, D]``.
            visible: ``bool [B, N]``; keys that may be attended to, or None for all.

        Returns:
            ``[B, N, D]``.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        mask = None if visible is None else visible[:, None, None, :]
        attended = attend(q, k, v, mask)
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

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[B, N, D]`` to ``[B, N, D]``; see `Attention.forward` for ``visible``."""
        x = x + self.attn(self.norm1(x), visible)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A stack of blocks without a final norm."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[B, N, D]`` to ``[B, N, D]``; see `Attention.forward` for ``visible``."""
        for block in self.blocks:
            x = block(x, visible)
        return x
