"""Several sources of clips as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource
from vaportok_rl.runtime.declared import checked


class MixedClips(ClipSource):
    """Interleaves several sources in fixed proportions.

    Clip ``i`` comes from the source ``turns[i mod len(turns)]``; a source that runs out starts again. So any
    ``len(turns)`` consecutive clips have the given proportions, and a shuffled order has them on average.

    Args:
        sources: equally sized clips of one split.
        turns: positions in ``sources``, repeated for a larger proportion; each once by default.

    Raises:
        ValueError: no sources, or sources of different geometry or split.
    """

    @checked
    def __init__(self, sources: Sequence[ClipSource], turns: Sequence[int] | None = None) -> None:
        kinds = {(source.frames, source.size, source.split) for source in sources}
        if len(kinds) != 1:
            raise ValueError(
                f"Expected one or more sources of equal frames, size and split, got {sorted(kinds)}; open them alike."
            )
        self.sources = tuple(sources)
        self.turns = tuple(turns if turns is not None else range(len(sources)))
        if sorted(set(self.turns)) != list(range(len(sources))):
            raise ValueError(
                f"Expected turns to name each of the {len(sources)} sources at least once by position, got "
                f"{self.turns}; pass positions such as [0, 0, 1]."
            )
        self.frames, self.size, self.split = kinds.pop()
        self.label_names = tuple(name for source in self.sources for name in source.label_names)
        self._first_labels = [sum(len(s.label_names) for s in self.sources[:k]) for k in range(len(sources))]
        self._shares = [self.turns.count(k) for k in range(len(sources))]
        # For each turn, how often its source came before within the cycle.
        self._earlier = [self.turns[:place].count(k) for place, k in enumerate(self.turns)]

    def __len__(self) -> int:
        cycles = max(-(-len(source) // share) for source, share in zip(self.sources, self._shares, strict=True))
        return cycles * len(self.turns)

    def describe(self) -> str:
        """The sources and their proportions."""
        parts = (
            f"{share}/{len(self.turns)} {source.describe()}"
            for source, share in zip(self.sources, self._shares, strict=True)
        )
        return "; ".join(parts)

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Returns the clips at ``indices``; see `ClipSource.batch`. ``ids`` are the indices of this mixture."""
        listed = self.check_indices(indices)
        return self._gather(listed, lambda source, rows: source.batch([self._place(listed[row])[1] for row in rows]))

    def training_batch(self, indices: Sequence[int] | Tensor, visits: Sequence[int], seed: int) -> ClipBatch:
        """Each source's clips as it trains on them; see `ClipSource.training_batch`."""
        listed = self.check_indices(indices)

        def take(source: ClipSource, rows: list[int]) -> ClipBatch:
            inner, repeats = [], []
            for row in rows:
                _, index, repeat, repeats_a_visit = self._place(listed[row])
                inner.append(index)
                # A source that runs out within one visit of the mixture is visited several times.
                repeats.append(visits[row] * repeats_a_visit + repeat)
            return source.training_batch(inner, repeats, seed)

        return self._gather(listed, take)

    def origin(self, index: int) -> ClipOrigin:
        """Origin of the clip at ``index``; see `ClipSource.origin`."""
        (listed,) = self.check_indices([index])
        position, inner, _, _ = self._place(listed)
        return self.sources[position].origin(inner)

    def first_alike(self, index: int) -> int:
        """The lowest index of the same clip; see `ClipSource.first_alike`."""
        position, inner, _, _ = self._place(index)
        cycle, nth = divmod(self.sources[position].first_alike(inner), self._shares[position])
        places = [place for place, turn in enumerate(self.turns) if turn == position]
        return cycle * len(self.turns) + places[nth]

    @cached_property
    def files(self) -> Mapping[Path, int]:
        """The files of all sources; see `ClipSource.files`."""
        return {path: clips for source in self.sources for path, clips in source.files.items()}

    def _content(self) -> object:
        return [self.turns, [source.identity for source in self.sources]]

    @property
    def skipped(self) -> Mapping[Path, str]:
        """Files skipped by any of the sources."""
        return {path: reason for source in self.sources for path, reason in source.skipped.items()}

    def _gather(self, listed: list[int], take: Callable[[ClipSource, list[int]], ClipBatch]) -> ClipBatch:
        """A batch from ``take(source, rows)`` of each source."""
        clips = torch.empty(len(listed), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        labels = torch.empty(len(listed), dtype=torch.int64)
        for position, source in enumerate(self.sources):
            rows = [row for row, index in enumerate(listed) if self.turns[index % len(self.turns)] == position]
            if rows:
                taken = take(source, rows)
                clips[rows] = taken.clips
                labels[rows] = taken.labels + self._first_labels[position]
        return ClipBatch(clips, labels, torch.tensor(listed, dtype=torch.int64))

    def _place(self, index: int) -> tuple[int, int, int, int]:
        """Source, index in it, how often it ran out before, and its rounds per visit of the mixture."""
        cycle, place = divmod(index, len(self.turns))
        position = self.turns[place]
        count = len(self.sources[position])
        taken = cycle * self._shares[position] + self._earlier[place]
        in_all = len(self) // len(self.turns) * self._shares[position]
        return position, taken % count, taken // count, -(-in_all // count)
