"""Tokens that the decoder does not listen to: finding them, and having them begin anew where it listens.

A token that adds little early in training is attended to less and less; then no gradient tells the encoder what to put
there, and the representation prior has it repeat an earlier token, which is easiest to predict. New queries alone do
not help, since the decoder goes by the position. So such a token is moved beside a token that is listened to, and
starts as nearly its copy; training leads the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.transformer import line_table

# Clips that influence is measured on: each is decoded once a token.
WAKING_CLIPS = 128

# Deviation of a copied query from its source, in deviations of all that are heard.
_APART = 0.05


@torch.no_grad()
def influence(model: VaporTok, clips: Iterable[Tensor]) -> Tensor:
    """How much each token's code matters: the change of the decoded video when it is the next clip's.

    Args:
        model: in evaluation mode.
        clips: batches ``uint8 [B, C, T, H, W]`` of at least two clips.

    Returns:
        ``float32 [K]``, squared differences of pixels in [0, 1], means over clips.
    """
    total, count = torch.zeros(model.config.tokens, device=model.device), 0
    for batch in clips:
        codes = model.encode(batch.to(model.device)).codes
        decoded = model.decode(codes)
        others = codes.roll(1, 0)
        for position in range(model.config.tokens):
            changed = codes.clone()
            changed[:, position] = others[:, position]
            total[position] += (model.decode(changed) - decoded).square().flatten(1).mean(1).sum()
        count += len(codes)
    return total / count


def unheard_tokens(influences: Tensor, share: float) -> Tensor:
    """Positions whose influence is less than a share of the median position's.

    Args:
        influences: ``float [K]``; see `influence`.
        share: in [0, 1).

    Returns:
        ``bool [K]``.
    """
    return influences < share * influences.median()


@torch.no_grad()
def wake_unheard(model: VaporTok, clips: Iterable[Tensor], share: float, seed: int, *, new_queries: bool = True) -> int:
    """Gives unheard tokens nearly the query and nearly the decoder position of a token that is heard.

    The sources are drawn without replacement, and keep their order. The decoder's table of positions is part of the
    weights: `VaporTok.from_pretrained` restores the moved ones.

    Args:
        model: changed in place.
        clips: batches ``uint8 [B, C, T, H, W]`` on which influence is measured.
        share: see `unheard_tokens`.
        seed: decides the sources and how the copies differ.
        new_queries: False moves the tokens in the decoder alone, so that all codes stay what they are: then the decoder
            learns to use what little they say.

    Returns:
        How many tokens were moved.
    """
    was_training = model.training
    unheard = unheard_tokens(influence(model.eval(), clips), share).cpu()
    model.train(was_training)
    moved, heard = unheard.nonzero().flatten(), (~unheard).nonzero().flatten()
    if not len(moved):
        return 0
    generator = torch.Generator().manual_seed(derive_seed("wake", seed))
    # Fewer than half can lie below the median, so there is a source of its own for each.
    sources = heard[torch.randperm(len(heard), generator=generator)[: len(moved)]].sort().values

    queries, table = model.encoder_latent_query_embed, model.get_buffer("decoder_latent_pe")
    width, base = queries.shape[1], model.config.latent_position_base
    if new_queries:
        noise = torch.randn(len(moved), width, generator=generator).to(queries)
        queries[moved] = queries[sources] + _APART * queries[heard].std() * noise
    step = line_table(width, sources + 0.5, base) - line_table(width, sources, base)
    table[0, moved] = table[0, sources] + step.to(table)
    return len(moved)
