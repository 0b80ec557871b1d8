"""Tokens that say what an earlier one has said: finding them, and letting their queries begin anew.

The representation prior rewards tokens that can be predicted, and a token that repeats an earlier one is the easiest
to predict. Late tokens, which add least to the picture, give in first, and no gradient leads two equal queries apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.noise import derive_seed


def repeated_tokens(codes: Tensor, share: float) -> Tensor:
    """Positions whose code equals that of one earlier position on more than a share of the clips.

    Args:
        codes: ``int64 [B, K]``.
        share: in [0, 1).

    Returns:
        ``bool [K]``.
    """
    agreement = (codes[:, :, None] == codes[:, None, :]).float().mean(0)
    return (agreement.tril(-1) > share).any(1)


@torch.no_grad()
def redraw_queries(model: VaporTok, clips: Iterable[Tensor], share: float, seed: int) -> int:
    """Draws the queries of repeated tokens anew, with the mean and deviation that each channel has over all queries.

    Args:
        model: changed in place.
        clips: batches ``uint8 [B, C, T, H, W]`` on which tokens are compared.
        share: see `repeated_tokens`.
        seed: decides the new queries.

    Returns:
        How many queries were redrawn.
    """
    was_training = model.training
    codes = torch.cat([model.eval().encode(batch.to(model.device)).codes for batch in clips])
    model.train(was_training)
    queries = model.encoder_latent_query_embed
    deviation, mean = torch.std_mean(queries, 0)
    generator = torch.Generator().manual_seed(derive_seed("redraw", seed))
    drawn = torch.randn(queries.shape, generator=generator).to(queries.device)
    repeated = repeated_tokens(codes, share)
    queries.copy_(torch.where(repeated[:, None], mean + deviation * drawn, queries))
    return int(repeated.sum())
