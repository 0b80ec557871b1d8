"""Sequences of different lengths side by side in one tensor, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from vaportok_rl.tokenizer.model import VaporTok


@dataclass(frozen=True)
class Packing:
    """How M sequences lie in a tensor ``[1, total, D]``; each attends to itself alone.

    Attributes:
        lengths: of the sequences, known on the host.
        starts: ``int32 [M + 1]`` on the device; where each begins, and where the last one ends.
        queries: how many positions at the end of every sequence are queries where not all are.
        query_starts: ``int32 [M + 1]`` on the device; where each begins in a tensor of those.
    """

    lengths: tuple[int, ...]
    starts: Tensor
    queries: int
    query_starts: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention within each sequence: one kernel on a GPU in half precision, one call a sequence elsewhere.

        Args:
            q: ``[1, heads, total, e]``, or ``[1, heads, M · queries, e]``.
            k: ``[1, heads, total, e]``.
            v: ``[1, heads, total, e]``.

        Returns:
            Of the shape of ``q``.
        """
        whole = q.shape[2] == k.shape[2]
        if q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16):
            # Not in the oldest releases of torch that everything else works with.
            from torch.nn.attention.varlen import varlen_attn

            longest = max(self.lengths)
            queries, keys, values = (part[0].transpose(0, 1) for part in (q, k, v))
            starts, most = (self.starts, longest) if whole else (self.query_starts, self.queries)
            packed = cast(Tensor, varlen_attn(queries, keys, values, starts, self.starts, most, longest))
            return packed.transpose(0, 1)[None]
        counts = list(self.lengths) if whole else [self.queries] * len(self.lengths)
        parts = zip(q.split(counts, 2), k.split(self.lengths, 2), v.split(self.lengths, 2), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], dim=2)


def decode_packed(world: VaporTok, codes: Tensor, n_tokens: Sequence[int] | NDArray[np.int64]) -> Tensor:
    """`VaporTok.decode` of clips that keep different numbers of tokens, without masks and padding.

    Args:
        world: the tokenizer.
        codes: ``int64 [M, N]``, not checked.
        n_tokens: how many of each clip's codes are kept, 1 … N, known on the host; not checked.

    Returns:
        ``float32 [M, C, T, H, W]``, clamped to [0, 1].
    """
    patches, device = world.config.patches, codes.device
    kept = np.asarray(n_tokens)
    lengths = kept + patches
    starts = np.concatenate([[0], lengths.cumsum()])
    steps = np.concatenate([np.arange(n) for n in kept])
    clips = np.repeat(np.arange(len(kept)), kept)
    # One copy to the device: clip and place of every kept token, and where tokens and patches go.
    patch_places = (starts[1:, None] - patches + np.arange(patches)).ravel()
    ends = np.concatenate([starts, np.arange(len(kept) + 1) * patches])
    sizes = [len(steps)] * 3 + [len(patch_places), len(starts), len(starts)]
    host = np.concatenate([clips, steps, starts[clips] + steps, patch_places, ends])
    rows, columns, places, patch_index, begin, query_begin = torch.tensor(host, device=device).split(sizes)
    packing = Packing(tuple(lengths.tolist()), begin.int(), patches, query_begin.int())
    with torch.no_grad(), world.autocast():
        vectors = world.bottleneck.regularizer.lookup(codes[rows, columns])
        latents = world.bottleneck.from_vectors(vectors) + world.get_buffer("decoder_latent_pe")[0, columns]
        queries = world.get_buffer("decoder_patch_query_embed") + world.decoder_patch_query_token_type_embed
        packed = latents.new_empty(int(starts[-1]), latents.shape[1])
        packed[places] = latents
        packed[patch_index] = queries[0].to(latents.dtype).repeat(len(kept), 1)
        decoded = world.decoder(packed[None], packing, patch_index)
        pixels = world.final_layer(decoded.unflatten(1, (len(kept), patches))[0])
        return world.assemble(pixels.float()).clamp(0, 1)
