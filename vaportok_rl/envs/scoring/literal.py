"""Scoring as the supplement describes it, one path at a time: the slow reference for tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.lengths import decoder_visible


@torch.no_grad()
def literal_scores(world: VaporTok, clips: Tensor, n_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes, decodes and ranks every clip of every path separately, at full length.

    Dropped tokens stay in the decoder's sequence and are masked.

    Args:
        world: a frozen tokenizer.
        clips: ``uint8 [P, L, C, T, H, W]``.
        n_tokens: ``int64 [G, P, L]`` in 1 … K.

    Returns:
        ``mse`` and ``accuracy`` as in `Outcome`, ``float32 [G, P, L]`` each.
    """
    mse, accuracy = torch.empty(n_tokens.shape), torch.empty(n_tokens.shape)
    places = torch.cartesian_prod(*(torch.arange(size) for size in n_tokens.shape))
    for path, scene, step in places.tolist():
        clip, n = clips[scene, step][None], int(n_tokens[path, scene, step])
        codes = _codes(world, clip)
        decoded = _decoded(world, codes, n)
        mse[path, scene, step] = (decoded - clip.float() / 255).square().mean()
        accuracy[path, scene, step] = _accuracy(world, codes, n)
    return mse, accuracy


def _codes(world: VaporTok, clip: Tensor) -> Tensor:
    video = clip.float() / 255
    if world.config.pixel_range == "symmetric":
        video = video * 2 - 1
    with world.autocast():
        patches = world.x_embedder(video) + world.get_buffer("encoder_patch_pe")
        sequence = torch.cat([patches, world.encoder_latent_query_embed[None]], dim=1)
        for block in world.encoder.blocks:
            sequence = block(sequence)
        latents = sequence[:, world.config.patches :].float()
    return world.bottleneck.quantize(latents).codes


def _decoded(world: VaporTok, codes: Tensor, n: int) -> Tensor:
    tokens = world.config.tokens
    visible = decoder_visible(torch.tensor([n], device=codes.device), tokens, world.config.patches)
    with world.autocast():
        vectors = world.bottleneck.regularizer.lookup(codes)
        latents = world.bottleneck.from_vectors(vectors) + world.get_buffer("decoder_latent_pe")
        queries = world.get_buffer("decoder_patch_query_embed") + world.decoder_patch_query_token_type_embed
        sequence = torch.cat([latents, queries.to(latents.dtype)], dim=1)
        for block in world.decoder.blocks:
            sequence = block(sequence, visible)
        pixels = world.final_layer(sequence[:, tokens:])
    return world.assemble(pixels.float()).clamp(0, 1)


def _accuracy(world: VaporTok, codes: Tensor, n: int) -> float:
    if n == 1:
        return 0.0
    logits = world.prior_logits(codes)[0]
    labels = codes[0, 1:]
    # A label is in the top 5 if at most four other logits are not smaller.
    rank = (~(logits < logits.gather(1, labels[:, None]))).sum(1)
    return float((rank[: n - 1] <= 5).float().mean())
