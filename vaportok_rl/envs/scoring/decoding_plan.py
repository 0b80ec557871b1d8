"""Which (clip, length) pairs to decode together, so that none is decoded twice and little is padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

# Largest share of padding in a decoder sequence.
PADDING = 0.1


@lru_cache(maxsize=64)
def length_ladder(tokens: int, patches: int, padding: float = PADDING) -> tuple[int, ...]:
    """Sequence lengths that pairs are padded to.

    The ladder depends on the geometry alone, never on the batch: a pair is always computed with the same padding,
    whatever it is scored with, so every face of the environment gets the same number for it.

    Args:
        tokens: K.
        patches: patch queries beside the kept tokens.
        padding: largest share by which a decoder sequence may grow; with 0, every length is a rung.

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
        start: position of the first pair among all distinct pairs.
        stop: position past the last one.
        padded: the sequences are cut after this many tokens.
        exact: whether every sequence of the batch, whatever is asked for, keeps exactly that many.
    """

    start: int
    stop: int
    padded: int
    exact: bool


@dataclass(frozen=True)
class DecodingPlan:
    """Batches of distinct pairs and the way back.

    Attributes:
        clips: ``int64 [pairs]``, row of each pair's clip.
        n_tokens: ``int64 [pairs]``, how many of its tokens are kept; rising.
        batches: in order; together they hold all pairs.
        inverse: ``int64`` of the lengths' shape; position of each request's pair.
    """

    clips: Indices
    n_tokens: Indices
    batches: tuple[DecodingBatch, ...]
    inverse: Indices

    @property
    def pairs(self) -> int:
        """Number of distinct pairs."""
        return len(self.clips)


def plan_decoding(
    n_tokens: Indices, tokens: int, patches: int, max_batch_tokens: int, padding: float = PADDING
) -> DecodingPlan:
    """Groups requests into batches.

    Args:
        n_tokens: ``int64 [G, N]``, lengths asked of each of N clips.
        tokens: K.
        patches: patch queries beside the kept tokens.
        max_batch_tokens: most decoder positions (kept tokens and patch queries) in one batch.
        padding: see `length_ladder`; with 0, only equal lengths are decoded together.
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
