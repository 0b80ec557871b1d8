"""The taildrop query module: from a clip's latents to a distribution over how many tokens to keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vaportok_rl.tokenizer.blocks import Transformer
from vaportok_rl.tokenizer.config import VaporTokConfig

# What the names of the module's weights begin with in a tokenizer's state.
TAILDROP_WEIGHTS = "taildrop_module."


class TaildropTrunk(nn.Module):
    """A learned query reads the latents through a small transformer: ``[B, K, D]`` to ``[B, D]``."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(width, heads, blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, latents: Tensor) -> Tensor:
        """``[B, K, D]`` to ``[B, D]``."""
        sequence = torch.cat([self.query.expand(latents.shape[0], -1, -1), latents], dim=1)
        out: Tensor = self.norm(self.transformer(sequence, wanted=slice(0, 1))[:, 0])
        return out


class TaildropQueryModule(nn.Module):
    """The policy: K logits and ``P = softmax(logits / temperature)`` (supplement E: two blocks, temperature 1.8)."""

    def __init__(self, config: VaporTokConfig) -> None:
        super().__init__()
        self.temperature = config.taildrop.temperature
        self.trunk = TaildropTrunk(config.width, config.heads, config.taildrop.blocks)
        self.head = nn.Linear(config.width, config.tokens)

    def forward(self, latents: Tensor) -> Tensor:
        """Log-probabilities of the lengths: ``[B, K, D]`` to ``float32 [B, K]``; entry a is n = a + 1."""
        log_p: Tensor = (self.head(self.trunk(latents)).float() / self.temperature).log_softmax(-1)
        return log_p

    def distribution(self, latents: Tensor) -> Categorical:
        """The distribution over actions; action a keeps n = a + 1 tokens."""
        return Categorical(logits=self(latents), validate_args=False)


def length_kl(log_p: Tensor, log_gaussian: Tensor) -> Tensor:
    """Probability prior (Eq. 8): KL(P ‖ Gaussian) a clip, ``[B, K]`` twice to ``[B]``, in nats."""
    return (log_p.exp() * (log_p - log_gaussian)).sum(-1)
