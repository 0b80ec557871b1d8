"""Batches of (clip, length) pairs to decode: no pair twice, little padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

# Maximum share of padding in a decoder sequence.
PADDING = 0.1


@lru_cache(maxsize=64)
def length_ladder(tokens: int, patches: int, padding: float = PADDING) -> tuple[int, ...]:
    """Sequence lengths that pairs are padded to.

    They depend on the geometry alone, never on the batch. A pair is therefore always computed with the same padding,
    and every environment class gets the same number for it.

    Args:
        tokens: K.
        patches: patch queries beside the kept tokens.
        padding: maximum share by which a decoder sequence may grow; with 0, no length is padded.

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
        start: index of the first pair among all distinct pairs.
        stop: index past the last one.
        padded: tokens per sequence, padding included.
        exact: whether only lengths of exactly ``padded`` tokens can be in this batch.
    """

    start: int
    stop: int
    padded: int
    exact: bool


@dataclass(frozen=True)
class DecodingPlan:
    """Distinct pairs in batches, and each request's pair.

    Attributes:
        clips: ``int64 [pairs]``, row of each pair's clip.
        n_tokens: ``int64 [pairs]``, tokens kept, ascending.
        batches: in order; together they cover all pairs.
        inverse: ``int64`` of the lengths' shape; index of each request's pair.
    """

    clips: Indices
    n_tokens: Indices
    batches: tuple[DecodingBatch, ...]
    inverse: Indices


def plan_decoding(
    n_tokens: Indices, tokens: int, patches: int, max_batch_tokens: int, padding: float = PADDING
) -> DecodingPlan:
    """Groups requests into batches.

    Args:
        n_tokens: ``int64 [G, N]``, lengths requested of each of N clips.
        tokens: K.
        patches: patch queries beside the kept tokens.
        max_batch_tokens: maximum decoder positions (kept tokens and patch queries) per batch.
        padding: see `length_ladder`; with 0, only equal lengths share a batch.
    """
    clips = np.broadcast_to(np.arange(n_tokens.shape[1]), n_tokens.shape)
    # Sorting by length first puts equal paddings side by side.
    keys = n_tokens * n_tokens.shape[1] + clips
    distinct, inverse = np.unique(keys, return_inverse=True)
    lengths, rows = np.divmod(distinct, n_tokens.shape[1])
    ladder = np.array((0, *length_ladder(tokens, patches, padding)))
    rungs, starts = np.unique(np.searchsorted(ladder, lengths), return_index=True)
    batches = []
    for rung, start, stop in zip(rungs, starts, [*starts[1:], len(lengths)], strict=True):
        padded, exact = int(ladder[rung]), bool(ladder[rung] == ladder[rung - 1] + 1)
        size = max(1, max_batch_tokens // (padded + patches))
        for first in range(int(start), int(stop), size):
            batches.append(DecodingBatch(first, min(int(stop), first + size), padded, exact))
    return DecodingPlan(rows, lengths, tuple(batches), inverse.reshape(n_tokens.shape))
