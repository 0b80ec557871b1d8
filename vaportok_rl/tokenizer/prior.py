"""The autoregressive prior over code vectors (supplement A.2; GPT-2 style, names as in LARP's checkpoints)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vaportok_rl.tokenizer.config import PriorConfig
from vaportok_rl.tokenizer.lengths import prior_supervised
from vaportok_rl.tokenizer.quantizer import gumbel_max
from vaportok_rl.tokenizer.transformer import attend


class CausalAttention(nn.Module):
    """Causal multi-head attention with separate, biased projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N, E]`` to ``[B, N, E]``; ``mask`` (``bool [B, N, N]``) replaces the causal mask."""
        q, k, v = (
            rearrange(layer(x), "b n (h e) -> b h n e", h=self.heads) for layer in (self.query, self.key, self.value)
        )
        attended = attend(q, k, v, None if mask is None else mask[:, None], causal=mask is None)
        out: Tensor = self.proj(rearrange(attended, "b h n e -> b n (h e)"))
        return out


class PriorBlock(nn.Module):
    """One pre-norm block of the prior."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=1e-5)
        self.ln2 = nn.LayerNorm(width, eps=1e-5)
        self.attn = CausalAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N, E]`` to ``[B, N, E]``."""
        x = x + self.dropout(self.attn(self.ln1(x), mask))
        out: Tensor = x + self.dropout(self.mlp(self.ln2(x)))
        return out


class AutoregressivePrior(nn.Module):
    """Predicts each code vector from those before it; scored by cosine against the codebook.

    Dropout applies to embeddings and residuals in training only, so evaluation is deterministic.
    """

    def __init__(self, config: PriorConfig, code_width: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.pos_emb = nn.Parameter(torch.zeros(1, config.positions, config.width))
        self.input_proj = nn.Linear(code_width, config.width)
        self.blocks = nn.ModuleList(
            PriorBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.ln_f = nn.LayerNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, code_width)
        self.dropout = nn.Dropout(config.dropout)

    def predict(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predicted next vectors.

        Args:
            vectors: ``[B, N, d]``, unit code vectors; all but the last token of a clip.
            mask: ``bool [B, N, N]`` in place of the causal mask.

        Returns:
            ``float32 [B, N, d]``, unit; row j predicts token j + 1.
        """
        x = self.dropout(self.input_proj(vectors) + self.pos_emb[:, : vectors.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        return F.normalize(self.head(self.ln_f(x)).float(), dim=-1, eps=1e-12)

    def logits(self, vectors: Tensor, unit_codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Cosine logits over the codebook.

        Args:
            vectors: ``[B, K, d]``, the clip's unit code vectors; the last one is not an input.
            unit_codes: ``[V, d]``; detached here, so the prior never moves the codebook.
            mask: see `predict`.

        Returns:
            ``float32 [B, K - 1, V]``; row j scores token j + 1.
        """
        return self.compare(self.predict(vectors[:, :-1], mask), unit_codes)

    def compare(self, predicted: Tensor, unit_codes: Tensor) -> Tensor:
        """Cosine logits of predicted vectors: unit ``[B, N, d]`` and ``[V, d]`` to ``float32 [B, N, V]``."""
        with torch.autocast(predicted.device.type, enabled=False):
            return (predicted @ unit_codes.detach().float().T) / self.temperature


def scheduled_sampling_logits(
    prior: AutoregressivePrior,
    vectors: Tensor,
    unit_codes: Tensor,
    ratio: float,
    rounds: int = 2,
    uniform: Callable[[torch.Size], Tensor] = torch.rand,
) -> list[Tensor]:
    """Scheduled-sampling mixing (LARP): later rounds see some of the prior's own samples as inputs.

    Round 1 sees the true codes. In each later round the positions of one Bernoulli(``ratio``) mask, drawn once, hold a
    code sampled from the round before; position 0 is always true.

    Args:
        prior: the prior in training mode.
        vectors: ``[B, K, d]``, true unit code vectors.
        unit_codes: ``[V, d]``.
        ratio: probability of replacing a position.
        rounds: at least 1.
        uniform: draws uniform numbers of a shape (on the vectors' device).

    Returns:
        One ``[B, K - 1, V]`` tensor per round.
    """
    results = [prior.logits(vectors, unit_codes)]
    if rounds == 1 or ratio <= 0:
        return results
    replaced = (uniform(vectors.shape[:2]).to(vectors.device) < ratio)[:, 1:, None]
    for _ in range(rounds - 1):
        own = F.embedding(gumbel_max(results[-1].detach(), uniform), unit_codes.detach())
        mixed = torch.cat([vectors[:, :1], torch.where(replaced, own, vectors[:, 1:])], dim=1)
        results.append(prior.logits(mixed, unit_codes))
    return results


def cumulative_hits(logits: Tensor, codes: Tensor, k: int = 5) -> Tensor:
    """Counts how many of the first tokens the prior predicts, for every length at once.

    Args:
        logits: ``[B, K - 1, V]``; row j scores token j + 1.
        codes: ``int64 [B, K]``.
        k: a hit is a label among the k highest logits.

    Returns:
        ``float32 [B, K]``: entry ``n - 1`` is the number of hits among the predicted tokens 1 … n - 1.
    """
    labels = codes[:, 1:]
    chosen = torch.gather(logits, 2, labels[..., None])
    # Counting is cheaper than sorting V logits. All logits not below the label's count, including its own, so that
    # equal or NaN logits predict nothing.
    hits = ((~(logits < chosen)).sum(-1) <= k).float()
    return F.pad(hits.cumsum(1), (1, 0))


def top_k_accuracy(hits: Tensor, n_tokens: Tensor) -> Tensor:
    """Top-k accuracy over the retained, predicted tokens 1 … n - 1; 0 where n = 1.

    Args:
        hits: ``float32 [..., K]`` from `cumulative_hits`.
        n_tokens: ``int64 [...]`` in 1 … K.

    Returns:
        ``float32 [...]`` in [0, 1].
    """
    counted = torch.gather(hits, -1, (n_tokens - 1)[..., None]).squeeze(-1)
    return counted / (n_tokens - 1).clamp(min=1)


def prior_loss(logits: Tensor, codes: Tensor, n_tokens: Tensor, count: Tensor | None = None) -> Tensor:
    """Representation prior (Eq. 7): mean of −log p over the retained, predicted tokens of the batch.

    Args:
        logits: ``[B, K - 1, V]``.
        codes: ``int64 [B, K]``.
        n_tokens: ``int64 [B]``.
        count: scalar to divide the sum by, where the batch is a part of a larger one; the number of retained,
            predicted tokens by default.

    Returns:
        Scalar; 0 where no token is predicted.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="none")
    counted = prior_supervised(n_tokens, codes.shape[1]).flatten()
    return torch.where(counted, losses, 0).sum() / (counted.sum() if count is None else count).clamp(min=1)
