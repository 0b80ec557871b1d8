"""The order of training clips: an endless shuffle with random access."""

from __future__ import annotations

import torch


class ClipOrder:
    """A seeded permutation per epoch, addressed by position, so that a resumed run needs no state.

    Args:
        count: clips in the source.
        seed: of the permutations.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def take(self, start: int, length: int) -> list[int]:
        """The clip indices at positions ``start … start + length - 1``."""
        indices: list[int] = []
        while length > 0:
            epoch, offset = divmod(start, self.count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
                self._permutation = torch.randperm(self.count, generator=generator)
                self._epoch = epoch
            part = self._permutation[offset : offset + length].tolist()
            indices += part
            start, length = start + len(part), length - len(part)
        return indices

    def visits(self, start: int, length: int) -> list[int]:
        """Number of earlier visits to the clip at each of these positions."""
        return [position // self.count for position in range(start, start + length)]
