"""Which (clip, length) pairs to decode together, so that none is decoded twice and little is padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@lru_cache(maxsize=64)
def length_ladder(tokens: int, patches: int, padding: float = 0.1) -> tuple[int, ...]:
    """Sequence lengths that pairs are padded to.

    The ladder depends on the geometry alone, never on the batch: a pair is always computed with the same padding,
    whatever it is scored with, so every face of the environment gets the same number for it.

    Args:
        tokens: K.
        patches: patch queries beside the kept tokens.
        padding: largest share by which a decoder sequence may grow.

    Returns:
        Increasing lengths, the last one K.
    """
    ladder = []
    low = 1
    while low <= tokens:
        high = max(low, min(tokens, int((low + patches) * (1 + padding)) - patches))
        ladder.append(high)
        low = high + 1
    return tuple(ladder)


@dataclass(frozen=True)
class DecodingBatch:
    """Pairs decoded in one call.

    Attributes:
        clips: ``int64 [M]``, row of each clip.
        n_tokens: ``int64 [M]``, how many of its tokens are kept.
        padded: the sequence is cut after this many tokens.
        start: position of the first pair among all distinct pairs.
    """

    clips: Indices
    n_tokens: Indices
    padded: int
    start: int


@dataclass(frozen=True)
class DecodingPlan:
    """Batches of distinct pairs and the way back.

    Attributes:
        batches: in order; their pairs together are all distinct pairs.
        inverse: ``int64`` of the lengths' shape; position of each request's pair.
        pairs: number of distinct pairs.
    """

    batches: tuple[DecodingBatch, ...]
    inverse: Indices
    pairs: int


def plan_decoding(n_tokens: Indices, tokens: int, patches: int, max_batch_tokens: int) -> DecodingPlan:
    """Groups requests into batches.

    Args:
        n_tokens: ``int64 [G, N]``, lengths asked of each of N clips.
        tokens: K.
        patches: patch queries beside the kept tokens.
        max_batch_tokens: most decoder positions (kept tokens and patch queries) in one batch.
    """
    clips = np.broadcast_to(np.arange(n_tokens.shape[1]), n_tokens.shape)
    # Sorting by length first puts equal paddings side by side.
    keys = n_tokens * n_tokens.shape[1] + clips
    distinct, inverse = np.unique(keys, return_inverse=True)
    lengths, rows = np.divmod(distinct, n_tokens.shape[1])
    batches = []
    start = 0
    for padded in length_ladder(tokens, patches):
        stop = int(np.searchsorted(lengths, padded, side="right"))
        size = max(1, max_batch_tokens // (padded + patches))
        for first in range(start, stop, size):
            chosen = slice(first, min(stop, first + size))
            batches.append(DecodingBatch(rows[chosen], lengths[chosen], padded, first))
        start = stop
    return DecodingPlan(tuple(batches), inverse.reshape(n_tokens.shape), len(distinct))
