"""`FootageClips`: clips of listed video files, with splits, a cache, and a rule for unreadable files."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from vaportok_rl.clips.cache import ClipCache
from vaportok_rl.clips.footage.decoding import (
    UnreadableVideoError,
    VideoIndex,
    first_frame_at,
    open_video,
    read_clips,
)
from vaportok_rl.clips.footage.skipping import OnError, SkippedFiles
from vaportok_rl.clips.footage.splits import (
    ListedVideo,
    check_test_fraction,
    clips_of_split,
    fraction_of,
    held_out_files,
    held_out_fold,
)
from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource, Split
from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, check_fields
from vaportok_rl.runtime.messages import warn_user

Starts = Literal["grid", "random"]

# A clip that is not cached is decoded together with the stretch of this many frames around it: a seek costs about a
# group of pictures (250 frames in x264's default), so the neighbours are nearly free. Stretches have fixed places in
# the file, so a clip is always decoded in the same way.
_STRETCH_FRAMES = 512


@dataclass(frozen=True)
class FootageOptions:
    """Options of all sources of footage."""

    frames: Annotated[int, AT_LEAST_1] = 16
    """T, frames per clip."""
    size: Annotated[int, AT_LEAST_1] = 32
    """H = W, pixels."""
    split: Split = "train"
    """``"train"``, or ``"test"`` for the held-out clips."""
    starts: Starts = "grid"
    """``"grid"`` for all non-overlapping clips of a file (which opens every file), ``"random"`` for one per file."""
    seed: int = 0
    """Start of the one clip of a file outside training."""
    on_error: OnError = "skip"
    """A file that is missing or unreadable: ``"skip"`` warns once per file and continues, ``"raise"`` stops."""
    cache_megabytes: Annotated[float, NOT_NEGATIVE] = 256
    """Memory (MiB) for decoded clips, least recently used out first; 0 for none. Random reads are fast while the split
    fits. Random starts of training are not cached."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class _File:
    """The clips of one file: ``numbers`` in the file, the first of them at index ``offset`` of the source.

    With random starts there is one number, and the clip begins anywhere in ``span`` (None: anywhere in the file).
    """

    path: Path
    key: str
    label: int
    numbers: range
    offset: int
    span: range | None


class FootageClips(ClipSource):
    """Base of `VideoClips`, `UCF101` and `KineticsCSV`, which only list the videos.

    Args:
        videos: the files of both splits, all with a split or all without.
        origin: where the list comes from, for messages.
        label_names: the classes; by default those of the readable files of both splits, in order.
        test_fraction: share of the files to hold out where the list does not say, in (0, 1).
        fold: the fold to hold out instead; see `held_out_fold`.
        **options: see `FootageOptions`.
    """

    def __init__(
        self,
        videos: Sequence[ListedVideo],
        origin: str,
        label_names: tuple[str, ...] | None = None,
        *,
        test_fraction: float = 0.2,
        fold: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        chosen = FootageOptions(**options)
        self.frames, self.size, self.split = chosen.frames, chosen.size, chosen.split
        self.starts, self.seed = chosen.starts, chosen.seed
        self._cache = ClipCache(int(chosen.cache_megabytes * 2**20))
        self.test_fraction = check_test_fraction(test_fraction)
        self._fold = fold
        self._skipped = SkippedFiles(origin, chosen.on_error)
        self._unreadable: set[int] = set()
        self._indexes: dict[Path, VideoIndex] = {}
        self._files, self.label_names = self._lay_out(videos, label_names)
        self._offsets = [file.offset for file in self._files]

    @property
    def skipped(self) -> Mapping[Path, str]:
        """For each file in which something could not be read, the reason."""
        return self._skipped.reasons

    def _lay_out(
        self, videos: Sequence[ListedVideo], names: tuple[str, ...] | None
    ) -> tuple[list[_File], tuple[str, ...]]:
        """Leaves out what cannot be read, takes this split's files, and numbers their clips."""
        decided = all(video.split is not None for video in videos)
        listed = [video for video in videos if video.split == self.split] if decided else list(videos)
        if not listed:
            raise ValueError(
                f"Expected videos of the {self.split} split in {self._skipped.origin}, got none among the "
                f"{len(videos)} listed; list some, or open the other split."
            )
        present = self._skipped.without_missing([video.path for video in listed])
        listed = [video for video in listed if video.path in present]
        if decided and self.starts == "random":
            # Neither the split nor the number of clips depends on the files' content, and opening all files of a large
            # data set takes hours. One readable file is enough to start.
            self._find_one_readable(listed)
            return self._number([(video, 1) for video in listed], names, by_time=False)
        probed = self._probe(listed)
        if decided or (len(probed) == 1 and self._fold is None):
            return self._number(probed, names, by_time=not decided)
        # Names come from both splits, so that a label means the same in either.
        names = names or _sorted_labels(video for video, _ in probed)
        if self._fold is None:
            held_out = held_out_files([video.key for video, _ in probed], self.test_fraction)
        else:
            held_out = held_out_fold([(video.key, n_clips) for video, n_clips in probed], self._fold)
        mine = [one for one, is_test in zip(probed, held_out, strict=True) if is_test == (self.split == "test")]
        return self._number(mine, names, by_time=False)

    def _number(
        self, probed: Sequence[tuple[ListedVideo, int]], names: tuple[str, ...] | None, by_time: bool
    ) -> tuple[list[_File], tuple[str, ...]]:
        """Gives the clips of files (with the number of clips each holds) their indices."""
        names = names or _sorted_labels(video for video, _ in probed)
        positions = {name: position for position, name in enumerate(names)}
        files: list[_File] = []
        offset = 0
        for video, n_clips in probed:
            numbers, span = range(n_clips), None
            if by_time:
                if n_clips == 1:
                    warn_user(
                        f"{video.path} is the only readable video and holds a single clip of {self.frames} frames, so "
                        "the train and the test split are the same clip; add videos to measure anything on held-out "
                        "ones."
                    )
                else:
                    numbers = clips_of_split(n_clips, self.split, self.test_fraction)
                    span = range(numbers.start * self.frames, numbers.stop * self.frames)
            if self.starts == "random":
                numbers = range(1)
            files.append(_File(video.path, video.key, positions[video.label], numbers, offset, span))
            offset += len(numbers)
        return files, names

    def _probe(self, videos: Sequence[ListedVideo]) -> list[tuple[ListedVideo, int]]:
        """The readable ones and how many whole clips (at least 1) each holds."""
        probed = []
        for video in videos:
            try:
                probed.append((video, max(1, self._index(video.path).count // self.frames)))
            except UnreadableVideoError as error:
                self._skipped.skip(error)
        if not probed:
            raise self._skipped.nothing_readable(len(videos))
        return probed

    def _find_one_readable(self, videos: Sequence[ListedVideo]) -> None:
        """Opens one file after the other until one can be opened."""
        for video in videos:
            try:
                self._index(video.path)
                return
            except UnreadableVideoError as error:
                self._skipped.skip(error)
        raise self._skipped.nothing_readable(len(videos))

    def _index(self, path: Path) -> VideoIndex:
        """A file's index, measured once; workers inherit it."""
        if path not in self._indexes:
            self._indexes[path] = open_video(path, self.frames)
        return self._indexes[path]

    def __len__(self) -> int:
        return self._files[-1].offset + len(self._files[-1].numbers)

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Returns the clips at ``indices``, in that order. With random starts, ``seed`` decides each file's clip.

        Args:
            indices: integers in ``0 … len(self) - 1``; repetitions are allowed.

        Raises:
            IndexError: an index lies outside the source.
            UnreadableVideoError: a clip cannot be decoded and ``on_error="raise"``, or none of the source can be.

        Warns:
            UserWarning: a file is damaged inside (once per file); the next readable clip takes its place.
        """
        wanted = self.check_indices(indices)
        fetched = self._fetch(wanted)

        def fetch(index: int) -> Tensor | None:
            if index not in fetched:
                fetched.update(self._fetch([index]))
            return fetched.get(index)

        return self._collect([self._first_readable(index, fetch) for index in wanted])

    def training_batch(self, indices: Sequence[int] | Tensor, visits: Sequence[int], seed: int) -> ClipBatch:
        """The clips at ``indices``, half of them mirrored; with ``starts="random"`` from a new start at each visit.

        See `ClipSource.training_batch` for the arguments and `batch` for the errors.
        """
        wanted = self.check_indices(indices)
        if self.starts == "grid":
            batch = self.batch(wanted)
        else:
            batch = self._collect(
                [
                    self._first_readable(index, partial(self._draw, visit=visit, seed=seed))
                    for index, visit in zip(wanted, visits, strict=True)
                ]
            )
        for row, (index, visit) in enumerate(zip(wanted, visits, strict=True)):
            if fraction_of(f"mirror/{seed}/{visit}/{index}") < 0.5:
                batch.clips[row] = batch.clips[row].flip(-1)
        return batch

    def _draw(self, index: int, visit: int, seed: int) -> Tensor | None:
        """The clip of the file at ``index`` for one visit of training; None if it cannot be read."""
        file = self._files[index]
        try:
            return self._read(file, [self._start(file, f"{seed}/{visit}/{index}")])[0]
        except UnreadableVideoError as error:
            self._skipped.skip(error)
            return None

    def _first_readable(self, index: int, fetch: Callable[[int], Tensor | None]) -> tuple[int, Tensor]:
        """The first readable clip at ``index`` or after it (cyclically), and its index."""
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            clip = fetch(candidate)
            if clip is not None:
                return candidate, clip
        raise self._skipped.nothing_readable(len(self._files))

    def _collect(self, delivered: Sequence[tuple[int, Tensor]]) -> ClipBatch:
        """A batch, in new memory, of clips with their indices."""
        clips = torch.empty(len(delivered), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        for row, (_, clip) in enumerate(delivered):
            clips[row] = clip
        ids = [index for index, _ in delivered]
        labels = [self._file_of(index).label for index in ids]
        return ClipBatch(clips, torch.tensor(labels, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64))

    def _fetch(self, indices: Iterable[int]) -> dict[int, Tensor]:
        """The readable clips among ``indices``, each ``uint8 [3, T, H, W]``."""
        wanted = sorted(set(indices))
        fetched = {index: clip for index in wanted if (clip := self._cache.get(index)) is not None}
        missing = set(wanted) - fetched.keys()
        for index in sorted(missing):
            # The stretch of an earlier index may have held this one.
            if index not in fetched and index not in self._unreadable:
                for neighbour, clip in self._decode_stretch(index).items():
                    self._cache.put(neighbour, clip)
                    if neighbour in missing:
                        fetched[neighbour] = clip
        return fetched

    def _decode_stretch(self, index: int) -> dict[int, Tensor]:
        """Decodes the clip at ``index`` and its stretch of the file; empty if it is unreadable."""
        file = self._file_of(index)
        clips_per_stretch = max(1, _STRETCH_FRAMES // self.frames)
        # Stretches are counted from the beginning of the file. Where a single file is split by time, each split reads
        # only its own part, so damage in one does not affect the other.
        begin = file.numbers[index - file.offset] // clips_per_stretch * clips_per_stretch
        numbers = range(max(begin, file.numbers.start), min(begin + clips_per_stretch, file.numbers.stop))
        taken = [file.offset + number - file.numbers.start for number in numbers]
        try:
            if self.starts == "random":
                clips = self._read(file, [self._fixed(file)])
            else:
                clips = self._read(file, [number * self.frames for number in numbers])
        except UnreadableVideoError as error:
            self._skipped.skip(error)
            self._unreadable.update(taken)
            return {}
        return dict(zip(taken, clips, strict=True))

    def _read(self, file: _File, first_frames: Sequence[int]) -> list[Tensor]:
        return read_clips(file.path, self._index(file.path), first_frames, self.frames, self.size)

    def _fixed(self, file: _File) -> int:
        """Start of a file's one clip outside training, from the file's name alone."""
        return self._start(file, f"{self.seed}/{file.key}")

    def _start(self, file: _File, drawn: str) -> int:
        span = file.span or range(self._index(file.path).count)
        return first_frame_at(fraction_of(f"start/{drawn}"), span, self.frames)

    def _file_of(self, index: int) -> _File:
        return self._files[bisect_right(self._offsets, index) - 1]

    def source_of(self, index: int) -> tuple[Path, int]:
        """The file of the clip at ``index``, and the clip's first frame in it (outside training).

        Raises:
            IndexError: ``index`` lies outside the source.
            UnreadableVideoError: with random starts, the file cannot be opened.
        """
        self.check_indices([index])
        file = self._file_of(index)
        if self.starts == "random":
            return file.path, self._fixed(file)
        return file.path, file.numbers[index - file.offset] * self.frames

    def origin(self, index: int) -> ClipOrigin:
        """File, first frame and label of the clip at ``index``; see `source_of` and `ClipSource.origin`."""
        path, first_frame = self.source_of(index)
        return ClipOrigin(str(path), first_frame, self.label_names[self._file_of(index).label])

    @cached_property
    def files(self) -> Mapping[Path, int]:
        """The files of this split and how many clips each gives."""
        return {file.path: len(file.numbers) for file in self._files}

    def _content(self) -> object:
        files = [
            (file.key, _sample(file.path), file.label, file.numbers.start, len(file.numbers), str(file.span))
            for file in self._files
        ]
        return [self.starts, self.seed, files]

    def consecutive_starts(self, length: int) -> Tensor | None:
        """See `ClipSource.consecutive_starts`; None with random starts, where a video gives a single clip."""
        if self.starts == "random":
            return None
        ends = [(file.offset, file.offset + len(file.numbers) - length + 1) for file in self._files]
        places = [torch.arange(first, end) for first, end in ends if end > first]
        return torch.cat(places) if places else torch.empty(0, dtype=torch.int64)

    def describe(self) -> str:
        """One line: how many clips of what size, of which split, from which files."""
        files = "1 file" if len(self._files) == 1 else f"{len(self._files)} files"
        return (
            f"{type(self).__name__}: {len(self)} {self.split} clips of {self.frames}x{self.size}x{self.size} from "
            f"{files} of {self._skipped.origin} ({len(self.label_names)} labels, {len(self.skipped)} files skipped)"
        )


def _sample(path: Path) -> tuple[int, str] | None:
    """Size of a file and a hash of its middle, which identify it without reading it whole; None if it is missing."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(size // 2)
        return size, hashlib.sha256(stream.read(4096)).hexdigest()


def _sorted_labels(videos: Iterable[ListedVideo]) -> tuple[str, ...]:
    return tuple(sorted({video.label for video in videos}))
