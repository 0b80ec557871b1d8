"""Scenes of an outcome table: row numbers, from which whatever is read is gathered when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property

import torch
from torch import Tensor

from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.table.table import TableSplit

ReadClips = Callable[[Tensor], Tensor]


class TableScene(Scene):
    """P scenes of L clips of a table, with everything a `Scene` has.

    Args:
        table: one split.
        rows: ``int64 [P, L]``, on the table's device.
        read_clips: ``int64 [N]`` rows to ``uint8 [N, C, T, H, W]``, for whoever reads `clips`.
    """

    table: TableSplit
    rows: Tensor
    read_clips: ReadClips

    def __init__(self, table: TableSplit, rows: Tensor, read_clips: ReadClips) -> None:
        # The parent is frozen, and none of its fields is set: they are gathered below.
        self.__dict__.update(table=table, rows=rows, read_clips=read_clips)

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
        if name == "latents" and (self.table.latents is None or self.table.latents.dim() != 3):
            raise ValueError(
                "Expected an outcome table with the latents of every token, got one without; build it with "
                "`--latents full`."
            )
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
        assert isinstance(first, TableScene)  # for the type checker: this is how `join_scenes` got here
        return cls(first.table, torch.cat([scene.indices for scene in scenes]), first.read_clips)


def _lazy(name: str) -> cached_property[Tensor]:
    def gather(scene: TableScene) -> Tensor:
        return scene._gathered(name, scene.rows)

    found: cached_property[Tensor] = cached_property(gather)
    found.__set_name__(TableScene, name)
    return found


for _part in fields(Scene):
    setattr(TableScene, _part.name, _lazy(_part.name))
