"""`ClipSource` over a table's rows; opens the videos on first access."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vaportok_rl.clips import ClipBatch, ClipOrigin, ClipSource
from vaportok_rl.envs.table.shards import clip_digests
from vaportok_rl.envs.table.table import OutcomeTable


class TableClips(ClipSource):
    """The clips of a table's rows; the videos are opened on first access.

    Args:
        table: the table.
        split: one of its splits.

    Raises:
        ValueError: the table has no such split.
    """

    def __init__(self, table: OutcomeTable, split: str) -> None:
        record, config = table.record(split), table.manifest.build.config
        self.table = table
        self.split = split  # type: ignore[assignment]
        self.frames, self.size, self.label_names = config.frames, config.size, record.label_names
        self._record = record

    def __len__(self) -> int:
        return self._record.clips

    def describe(self) -> str:
        """The table and its clip source."""
        build = self.table.manifest.build
        clips = build.clips if isinstance(build.clips, str) else ", ".join(build.clips)
        return f"outcome table {self.table.folder}: {len(self)} clips of {clips}, split {self.split!r}"

    @cached_property
    def _source(self) -> ClipSource:
        return self.table.open_source(self.split)

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Reads the clips, and checks that they are those the table was built from.

        Raises:
            FileNotFoundError: the clips are missing.
            ValueError: they have changed.
            IndexError: an index lies outside the table.
        """
        rows = self.check_indices(indices)
        batch = self._source.batch(rows)
        changed = (clip_digests(batch.clips) != self.table[self.split].clip_sha256[rows].cpu()).any(1)
        if changed.any():
            raise ValueError(
                f"Expected the clips that {self.describe()} was built from, got other pixels for clip "
                f"{rows[int(changed.int().argmax())]}; restore the clips, or rebuild the table."
            )
        return batch

    def origin(self, index: int) -> ClipOrigin:
        """The origin of the clip at ``index``; only its label if the clips are missing."""
        (row,) = self.check_indices([index])
        if self._source_here is None:
            return ClipOrigin("", 0, self.label_names[int(self.table[self.split].labels[row])])
        return self._source_here.origin(row)

    def first_alike(self, index: int) -> int:
        """See `ClipSource.first_alike`."""
        return self._first_alike[index]

    @cached_property
    def _first_alike(self) -> list[int]:
        first: dict[tuple[int, ...], int] = {}
        digests = self.table[self.split].clip_sha256.tolist()
        return [first.setdefault(tuple(digest), row) for row, digest in enumerate(digests)]

    @cached_property
    def _source_here(self) -> ClipSource | None:
        try:
            return self._source
        except (OSError, ValueError):
            return None

    def _content(self) -> object:
        return self.table.manifest.build.identity

    def consecutive_starts(self, length: int) -> Tensor | None:
        """See `ClipSource.consecutive_starts`."""
        if not self._record.consecutive:
            return None
        followed = self.table[self.split].followed.cpu()
        begins = torch.ones(len(self), dtype=torch.bool)
        for offset in range(length - 1):
            begins &= torch.cat([followed[offset:], torch.zeros(min(offset, len(self)), dtype=torch.bool)])
        return begins.nonzero().flatten()
