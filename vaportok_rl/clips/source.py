"""`ClipSource`, the interface of all clips: a length, labels, and batches of uint8 video by index."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

import vaportok_rl.runtime.forks  # noqa: F401 (workers forked from here on compute with one thread)

Split = Literal["train", "test"]


def check_split(split: str) -> Split:
    """Returns ``split`` if it names one of the two splits.

    Raises:
        ValueError: ``split`` is neither ``"train"`` nor ``"test"``.
    """
    for name in get_args(Split):
        if split == name:
            return name  # type: ignore[no-any-return]
    raise ValueError(
        f"Expected split to be 'train' or 'test' (held out), got {split!r}; pass split='train' or split='test'."
    )


@dataclass(frozen=True)
class ClipBatch:
    """Clips taken from a source, on the host.

    Attributes:
        clips: ``uint8 [B, C, T, H, W]``, RGB.
        labels: ``int64 [B]``, index into the source's ``label_names``.
        ids: ``int64 [B]``, the index of each clip; of an unreadable video clip, that of the clip in its place.
    """

    clips: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return self.clips.shape[0]


@dataclass(frozen=True)
class ClipOrigin:
    """Origin of a clip.

    Attributes:
        file: the video file, or empty for clips that come from no file.
        start_frame: index of the clip's first frame, in presentation order, in its file; 0 without a file.
        label: name of the clip's class.
    """

    file: str
    start_frame: int
    label: str


class ClipSource(ABC):
    """A finite, indexable, deterministic collection of equally sized clips.

    Index ``i`` gives the same clip in every batch and in every process.

    Attributes:
        frames: T, frames per clip.
        size: H = W, pixels.
        split: ``"train"`` or ``"test"`` (held out).
        label_names: names of the classes; a clip's label is an index into it.
    """

    frames: int
    size: int
    split: Split
    label_names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """The number of clips."""

    @abstractmethod
    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Returns the clips at ``indices``, in that order.

        Args:
            indices: integers in ``0 … len(self) - 1``; repetitions are allowed.

        Raises:
            IndexError: an index lies outside the source.
        """

    def training_batch(self, indices: Sequence[int] | Tensor, visits: Sequence[int], seed: int) -> ClipBatch:
        """The clips at ``indices`` for training: footage is augmented, other clips are as in `batch`.

        It is a pure function of its arguments, row by row, so a resumed run sees the clips of an uninterrupted one.

        Args:
            indices: integers in ``0 … len(self) - 1``.
            visits: for each index, the number of earlier visits; each visit is augmented differently.
            seed: of the training run.

        Raises:
            IndexError: an index lies outside the source.
        """
        return self.batch(indices)

    def origin(self, index: int) -> ClipOrigin:
        """Origin of the clip at ``index``.

        Raises:
            IndexError: ``index`` lies outside the source.
        """
        return ClipOrigin("", 0, self.label_names[int(self.batch([index]).labels[0])])

    def first_alike(self, index: int) -> int:
        """The lowest index with the same clip; lower than ``index`` where a source repeats its clips."""
        return index

    def consecutive_starts(self, length: int) -> Tensor | None:
        """Where ``length`` consecutive clips of one video begin, ``int64 [N]``; None if clips are independent."""
        return None

    @property
    def files(self) -> Mapping[Path, int]:
        """The files of this split, with their numbers of clips; empty for clips that come from no file."""
        return {}

    @property
    def identity(self) -> str:
        """A hash that identifies the clips on every machine: 16 hexadecimal digits.

        A run may be resumed on clips of the same identity. It does not depend on the folder, nor on which files turn
        out to be unreadable.
        """
        facts = [type(self).__name__, self.frames, self.size, self.split, len(self), list(self.label_names)]
        text = json.dumps([*facts, self._content()])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def _content(self) -> object:
        """What identifies the clips besides length, size, split and labels, as JSON."""
        return self.describe()

    @property
    def skipped(self) -> Mapping[Path, str]:
        """The files found unreadable, in part or whole, so far, and why."""
        return {}

    def __getitem__(self, index: int) -> Tensor:
        """The clip at ``index`` as ``uint8 [C, T, H, W]``."""
        return self.batch([index]).clips[0]

    @abstractmethod
    def describe(self) -> str:
        """One line for logs: the kind and size of this source."""

    def check_indices(self, indices: Sequence[int] | Tensor) -> list[int]:
        """``indices`` as Python integers, each checked to be in range."""
        listed = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).tolist()
        for index in listed:
            if not 0 <= index < len(self):
                raise IndexError(
                    f"Expected clip indices in 0…{len(self) - 1}, got {index}; this source holds {len(self)} clips "
                    f"({self.describe()})."
                )
        return listed
