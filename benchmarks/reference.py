"""Encoder and decoder as anyone would write them in plain PyTorch: what ours must not be slower than."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaportok_rl.tokenizer import Precision, VaporTokConfig


class PlainBlock(nn.Module):
    """A pre-norm block: `nn.Linear` and `F.scaled_dot_product_attention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` to ``[B, N, D]``."""
        batch, positions, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, positions, width))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PlainTokenizer(nn.Module):
    """Random weights of a tokenizer's geometry; under autocast in bfloat16."""

    def __init__(self, config: VaporTokConfig, precision: Precision) -> None:
        super().__init__()
        self.config, self.precision = config, precision
        patch = (config.patch_frames, config.patch_size, config.patch_size)
        self.embed = nn.Conv3d(config.channels, config.width, patch, stride=patch)
        self.queries = nn.Parameter(torch.randn(1, config.tokens, config.width))
        self.patch_queries = nn.Parameter(torch.randn(1, config.patches, config.width))
        self.encoder = nn.Sequential(*(PlainBlock(config.width, config.heads) for _ in range(config.encoder_depth)))
        self.decoder = nn.Sequential(*(PlainBlock(config.width, config.heads) for _ in range(config.decoder_depth)))
        self.to_code, self.from_code = (
            nn.Linear(config.width, config.code_width),
            nn.Linear(config.code_width, config.width),
        )
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.code_width))
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.patch_values))
        self.requires_grad_(False)

    def encode(self, clips: Tensor) -> Tensor:
        """``uint8 [B, C, T, H, W]`` to ``int64 [B, K]``."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            patches = self.embed(clips.float() / 255).flatten(2).transpose(1, 2)
            x = self.encoder(torch.cat([patches, self.queries.expand(len(clips), -1, -1)], 1))
        vectors = F.normalize(self.to_code(x[:, self.config.patches :].float()), dim=-1)
        return (vectors @ self.codebook.T).argmax(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """``int64 [B, N]`` to patches ``float32 [B, P, values]``."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = torch.cat([self.from_code(self.codebook[codes]), self.patch_queries.expand(len(codes), -1, -1)], 1)
            out: Tensor = self.head(self.decoder(x)[:, codes.shape[1] :])
        return out.float()
