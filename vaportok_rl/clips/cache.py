"""A memory-bounded cache of decoded clips."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor


class ClipCache:
    """Clips of one shape by index; the least recently used make room beyond ``capacity_bytes``.

    They lie in one block, touched as far as it is filled. Allocated one by one, small clips would stay between the
    large frames they were made of and keep the memory of these from being given back.

    It pickles empty: a worker process gets the capacity, not the contents.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._places: OrderedDict[int, int] = OrderedDict()
        self._block = torch.empty(0)

    def get(self, index: int) -> Tensor | None:
        """A copy of the clip at ``index`` if it is cached."""
        place = self._places.get(index)
        if place is None:
            return None
        self._places.move_to_end(index)
        return self._block[place].clone()

    def put(self, index: int, clip: Tensor) -> None:
        """Caches a copy of ``clip``, if the cache is large enough for one."""
        if not self._places:
            self._block = torch.empty(self.capacity_bytes // clip.nbytes, *clip.shape, dtype=clip.dtype)
        if not len(self._block):
            return
        place = self._places.pop(index, None)
        if place is None:
            full = len(self._places) == len(self._block)
            place = self._places.popitem(last=False)[1] if full else len(self._places)
        self._block[place] = clip
        self._places[index] = place

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {"capacity_bytes": self.capacity_bytes, "_places": OrderedDict(), "_block": torch.empty(0)}
