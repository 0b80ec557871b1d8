"""Scenes of an outcome table: row numbers, from which whatever is read is gathered when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.table.table import TableSplit

ReadClips = Callable[[Tensor], Tensor]
_PARTS = frozenset(part.name for part in fields(Scene))


class TableScene(Scene):
    """P scenes of L clips of a table, with everything a `Scene` has.

    Attributes:
        table: one split.
        rows: ``int64 [P, L]``, on the table's device.
        read_clips: ``int64 [N]`` rows to ``uint8 [N, C, T, H, W]``, for whoever reads `clips`.
    """

    table: TableSplit
    rows: Tensor
    read_clips: ReadClips

    def __init__(self, table: TableSplit, rows: Tensor, read_clips: ReadClips) -> None:
        # The parent is frozen, and none of its fields is set: `__getattr__` gathers them.
        self.__dict__.update(table=table, rows=rows, read_clips=read_clips)

    if not TYPE_CHECKING:  # a scene has its fields and nothing else

        def __getattr__(self, name: str) -> Tensor:
            if name not in _PARTS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return self.__dict__.setdefault(name, self._gathered(name, self.rows))

    @property
    def shape(self) -> tuple[int, int]:
        """``(P, L)``."""
        return self.rows.shape[0], self.rows.shape[1]

    @property
    def tokens(self) -> int:
        """K."""
        return self.table.tokens

    @property
    def indices(self) -> Tensor:
        """``int64 [P, L]``, the clips' positions in the source."""
        return self.rows

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.rows.device

    def _gathered(self, name: str, rows: Tensor) -> Tensor:
        """One part of the scene for some rows, in the type that a `Scene` has."""
        if name == "clips":
            return torch.unflatten(self.read_clips(rows.flatten()), 0, rows.shape).to(rows.device)
        if name == "bits" and self.table.bits is None:
            return torch.empty(*rows.shape, 0, device=rows.device)
        if name == "latents" and (self.table.latents is None):
            raise ValueError("Expected an outcome table with latents, got one without; build it with `--latents full`.")
        value: Tensor = getattr(self.table, name)[rows]
        kinds = {"latents": torch.float32, "hits": torch.float32, "codes": torch.int64}
        return value.to(kinds.get(name, value.dtype))

    def part(self, name: str, paths: Tensor, steps: Tensor) -> Tensor:
        """One field of one clip of each chosen scene: ``[P', ...]``."""
        return self._gathered(name, self.rows[paths, steps])

    def at(self, paths: Tensor, steps: Tensor) -> TableScene:
        """One clip of each chosen scene: a scene of shape ``(P', 1)``."""
        return TableScene(self.table, self.rows[paths, steps][:, None], self.read_clips)

    def replace_paths(self, paths: Tensor, new: Scene) -> TableScene:
        """A copy in which the chosen scenes are those of ``new`` (in order), a scene of the same table."""
        rows = self.rows.clone()
        rows[paths] = new.indices
        return TableScene(self.table, rows, self.read_clips)

    @classmethod
    def joined(cls, scenes: Sequence[Scene]) -> Scene:
        """Stacks scenes of one table along P."""
        first = scenes[0]
        assert isinstance(first, TableScene)  # for the type checker
        return cls(first.table, torch.cat([scene.indices for scene in scenes]), first.read_clips)
