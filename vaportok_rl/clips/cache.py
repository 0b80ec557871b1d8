"""A memory-bounded cache of decoded clips."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor


class ClipCache:
    """Clips by index; the least recently used are dropped beyond ``capacity_bytes``.

    It pickles empty: a worker process gets the capacity, not the contents.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self._clips: OrderedDict[int, Tensor] = OrderedDict()

    def get(self, index: int) -> Tensor | None:
        """The clip at ``index`` if it is cached."""
        clip = self._clips.get(index)
        if clip is not None:
            self._clips.move_to_end(index)
        return clip

    def put(self, index: int, clip: Tensor) -> None:
        """Caches ``clip``, which must own its memory."""
        replaced = self._clips.pop(index, None)
        if replaced is not None:
            self.held_bytes -= replaced.nbytes
        self._clips[index] = clip
        self.held_bytes += clip.nbytes
        while self.held_bytes > self.capacity_bytes:
            self.held_bytes -= self._clips.popitem(last=False)[1].nbytes

    def __len__(self) -> int:
        return len(self._clips)

    def __getstate__(self) -> dict[str, Any]:
        return {"capacity_bytes": self.capacity_bytes, "held_bytes": 0, "_clips": OrderedDict()}
