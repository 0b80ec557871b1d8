"""Mixtures: proportions, labels, restarting of short sources, and visits of the sources."""

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.clips import ClipBatch, ClipSource, MixedClips, ProceduralClips, Split

Taken = tuple[int, int, int, int]


class Marked(ClipSource):
    """Clips whose first pixels are the source's name, the index and (in training) visit and seed."""

    def __init__(self, name: int, count: int, frames: int = 1, size: int = 2, split: Split = "train") -> None:
        self.name, self.count = name, count
        self.frames, self.size, self.split = frames, size, split
        self.label_names = tuple(f"{name}/{label}" for label in range(name + 1))

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        return self.training_batch(indices, [0] * len(indices), 0)

    def training_batch(self, indices: Sequence[int] | Tensor, visits: Sequence[int], seed: int) -> ClipBatch:
        listed = self.check_indices(indices)
        clips = torch.zeros(len(listed), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        for clip, index, visit in zip(clips, listed, visits, strict=True):
            clip[0].view(-1)[:4] = torch.tensor([self.name, index, visit, seed])
        labels = torch.tensor([index % len(self.label_names) for index in listed], dtype=torch.int64)
        return ClipBatch(clips, labels, torch.tensor(listed, dtype=torch.int64))

    def describe(self) -> str:
        return f"source {self.name}"

    @property
    def skipped(self) -> dict[Path, str]:
        return {Path(f"{self.name}.mp4"): "broken"}


def taken(batch: ClipBatch) -> list[Taken]:
    """Source, index, visit and seed of each clip."""
    return [tuple(clip[0].view(-1)[:4].tolist()) for clip in batch.clips]


def test_sources_take_turns_in_order() -> None:
    mixed = MixedClips([Marked(0, 3), Marked(1, 2)], turns=[0, 1, 0])
    assert len(mixed) == 6  # the second source is through after two rounds, the first after one and a half
    assert [(name, index) for name, index, _, _ in taken(mixed.batch(range(6)))] == [
        (0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 0),
    ]  # fmt: skip
    batch = mixed.batch([4, 1, 4])
    assert [clip[:2] for clip in taken(batch)] == [(1, 1), (1, 0), (1, 1)]
    assert [mixed.label_names[label] for label in batch.labels.tolist()] == ["1/1", "1/0", "1/1"]
    assert batch.ids.tolist() == [4, 1, 4]
    assert mixed.batch([]).clips.shape == (0, 3, 1, 2, 2)
    assert mixed.describe() == "2/3 source 0; 1/3 source 1"
    assert set(mixed.skipped) == {Path("0.mp4"), Path("1.mp4")}
    assert [mixed.first_alike(index) for index in range(6)] == [0, 1, 2, 3, 4, 0]
    assert [mixed.origin(index).label for index in (0, 1, 4)] == ["0/0", "1/0", "1/1"]
    with pytest.raises(IndexError):
        mixed.batch([6])


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.data())
def test_every_clip_comes_and_every_visit_is_new(counts: list[int], data: st.DataObject) -> None:
    extra = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=3))
    turns = data.draw(st.permutations([*range(len(counts)), *extra]))
    mixed = MixedClips([Marked(name, count) for name, count in enumerate(counts)], turns)
    clips: list[Taken] = []
    for visit in range(3):
        clips += taken(mixed.training_batch(range(len(mixed)), [visit] * len(mixed), seed=7))
    for name, count in enumerate(counts):
        assert {index for source, index, _, _ in clips if source == name} == set(range(count))
    # No source sees an index at the same visit twice, or it would augment it in the same way.
    assert max(Counter(clips).values()) == 1
    assert {seed for _, _, _, seed in clips} == {7}
    shares = Counter(source for source, *_ in clips)
    assert all(shares[name] == 3 * len(mixed) // len(turns) * turns.count(name) for name in range(len(counts)))


def test_a_mixture_pickles() -> None:
    mixed = MixedClips([ProceduralClips(frames=2, size=8), ProceduralClips(1, frames=2, size=8)])
    assert torch.equal(pickle.loads(pickle.dumps(mixed))[5], mixed[5])


def test_bad_mixtures() -> None:
    with pytest.raises(ValueError, match="of equal frames, size and split"):
        MixedClips([])
    for other in (Marked(1, 2, frames=2), Marked(1, 2, size=4), Marked(1, 2, split="test")):
        with pytest.raises(ValueError, match="of equal frames, size and split"):
            MixedClips([Marked(0, 2), other])
    for turns in ([0], [0, 1, 2], []):
        with pytest.raises(ValueError, match="Expected turns to name each of the 2 sources"):
            MixedClips([Marked(0, 2), Marked(1, 2)], turns)
