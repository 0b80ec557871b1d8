"""Clips out of the video files a user has."""

from __future__ import annotations

import os
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from vaportok_rl.clips.cache import ClipCache
from vaportok_rl.clips.decoding import UnreadableVideoError, probe, read_clips
from vaportok_rl.clips.file_split import check_test_fraction, clips_of_split, find_videos, held_out_files
from vaportok_rl.clips.source import ClipBatch, ClipSource, Split, check_split

OnError = Literal["skip", "raise"]

# A clip that is not in the cache is decoded together with its neighbours, in stretches of this many frames: a seek
# costs about a group of pictures (250 frames in x264's default), so the neighbours are nearly free. The stretches are
# fixed places in the file. A clip is therefore always decoded in the same way, whatever was asked for before.
_STRETCH_FRAMES = 512


@dataclass(frozen=True)
class _File:
    """A readable file's share of the source: its clips ``numbers``, the first of them at index ``offset``."""

    path: Path
    numbers: range
    offset: int
    label: int


class VideoClips(ClipSource):
    """Clips of consecutive frames, at native rate, from video files on disk.

    A file gives non-overlapping clips of ``frames`` frames. A remainder shorter than a clip is dropped, unless the
    whole file is shorter, which then gives one clip with its last frame repeated. The shorter side of a frame is
    resized to ``size`` (bilinear, antialiased) and the central square cut out. A clip's label is the name of the
    folder its file lies in.

    The split is by file, by a hash of the file's path below the folder given (see `held_out_files`): it does not
    depend on the machine, on the order of the paths, or (but for the case documented there) on other files. A lone
    readable file is split by time instead: the beginning is trained on, the end held out.

    Every file is opened and its first and last clip are decoded at construction. Damage further inside shows only
    when the clip is asked for: its index then delivers the next readable clip, and ``ids`` says which one that is.
    Damage makes a whole stretch (512 frames) unreadable, as the decoder does not say exactly where it begins.

    Args:
        path: a video file, a folder (searched recursively for `VIDEO_SUFFIXES`), a glob pattern, or a sequence of
            these. ``~`` is expanded, duplicates count once.
        frames: T, frames a clip.
        size: H = W, pixels.
        split: ``"train"`` or ``"test"`` (held out).
        test_fraction: share of the files (of the clips, if there is a lone file) to hold out, in (0, 1).
        on_error: ``"skip"`` warns once about each unreadable file and goes on; ``"raise"`` stops at the first.
        cache_megabytes: memory (MiB) for decoded clips, least recently used out first; 0 for none. Reading clips at
            random is fast as long as the split fits.

    Attributes:
        skipped: for each file in which something could not be read, the reason.

    Raises:
        FileNotFoundError: a path does not exist, or there are no videos there.
        UnreadableVideoError: (a ``ValueError``) no file can be read, or one cannot and ``on_error="raise"``.
        ValueError: an argument outside its range.

    Warns:
        UserWarning: a file was skipped, or the only readable file holds a single clip and serves both splits.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        frames: int = 16,
        size: int = 32,
        split: Split = "train",
        test_fraction: float = 0.2,
        on_error: OnError = "skip",
        cache_megabytes: float = 256,
    ) -> None:
        if frames < 1:
            raise ValueError(f"Expected frames of at least 1, got {frames}; pass frames=16 for 16-frame clips.")
        if size < 1:
            raise ValueError(f"Expected size of at least 1 pixel, got {size}; pass size=32 for 32x32 clips.")
        if on_error not in get_args(OnError):
            raise ValueError(
                f"Expected on_error to be 'skip' or 'raise', got {on_error!r}; pass on_error='skip' to leave "
                "unreadable videos out, on_error='raise' to stop at the first."
            )
        if not cache_megabytes >= 0:
            raise ValueError(
                f"Expected cache_megabytes of at least 0, got {cache_megabytes}; pass 0 to decode every clip anew."
            )
        self.frames = frames
        self.size = size
        self.split = check_split(split)
        self.test_fraction = check_test_fraction(test_fraction)
        self.on_error = on_error
        self.skipped: dict[Path, str] = {}
        self._given = [os.fspath(path)] if isinstance(path, str | os.PathLike) else [os.fspath(one) for one in path]
        self._cache = ClipCache(int(cache_megabytes * 2**20))
        self._unreadable: set[int] = set()
        self._files, self.label_names = self._lay_out()
        self._offsets = [file.offset for file in self._files]

    def _lay_out(self) -> tuple[list[_File], tuple[str, ...]]:
        """Finds and probes the files, splits them, and numbers the clips of this split."""
        found = find_videos(self._given)
        readable: list[tuple[Path, str, int]] = []  # path, key, clips
        for video in found:
            try:
                n_frames = probe(video.path, self.frames)
            except UnreadableVideoError as error:
                self._skip(error, stacklevel=4)
            else:
                readable.append((video.path, video.key, max(1, n_frames // self.frames)))
        if not readable:
            raise self._nothing_readable(len(found))
        # Names come from both splits, so that a label means the same in either.
        names = tuple(sorted({path.parent.name for path, _, _ in readable}))
        if len(readable) == 1:
            path, _, n_clips = readable[0]
            if n_clips == 1:
                warnings.warn(
                    f"{path} is the only readable video and holds a single clip of {self.frames} frames, so the train "
                    "and the test split are the same clip; add videos to measure anything on held-out ones.",
                    stacklevel=3,
                )
            return [_File(path, clips_of_split(n_clips, self.split, self.test_fraction), 0, 0)], names
        held_out = held_out_files([key for _, key, _ in readable], self.test_fraction)
        files: list[_File] = []
        offset = 0
        for (path, _, n_clips), is_test in zip(readable, held_out, strict=True):
            if is_test == (self.split == "test"):
                files.append(_File(path, range(n_clips), offset, names.index(path.parent.name)))
                offset += n_clips
        return files, names

    def _nothing_readable(self, n_found: int) -> UnreadableVideoError:
        """The error for a collection of which nothing can be decoded."""
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in list(self.skipped.items())[:5])
        more = f"; and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        return UnreadableVideoError(
            Path(", ".join(self._given)),
            f"expected at least one readable video, got none among {n_found} ({reasons}{more}); "
            "re-encode them, for instance with ffmpeg to H.264, or pass other videos",
        )

    def _skip(self, error: UnreadableVideoError, stacklevel: int) -> None:
        """Raises, or warns once about the file and notes the reason."""
        if self.on_error == "raise":
            raise error
        if error.path not in self.skipped:
            self.skipped[error.path] = error.reason
            warnings.warn(f"Skipped the unreadable video {error.path}: {error.reason}.", stacklevel=stacklevel)

    def __len__(self) -> int:
        return self._files[-1].offset + len(self._files[-1].numbers)

    def batch(self, indices: Sequence[int] | Tensor) -> ClipBatch:
        """Returns the clips at ``indices``, in that order.

        Args:
            indices: integers in ``0 … len(self) - 1``; repetitions are allowed.

        Raises:
            IndexError: an index lies outside the source.
            UnreadableVideoError: a clip cannot be decoded and ``on_error="raise"``, or none of the source can be.

        Warns:
            UserWarning: a file turned out to be damaged inside (once a file); another clip takes the place.
        """
        wanted = self.check_indices(indices)
        fetched = self._fetch(wanted)
        ids = [self._stand_in(index, fetched) for index in wanted]
        clips = torch.empty(len(ids), 3, self.frames, self.size, self.size, dtype=torch.uint8)
        for row, index in enumerate(ids):
            clips[row] = fetched[index]
        labels = [self._file_of(index).label for index in ids]
        return ClipBatch(clips, torch.tensor(labels, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64))

    def _stand_in(self, index: int, fetched: dict[int, Tensor]) -> int:
        """The first readable index at or (cyclically) after ``index``; its clip is added to ``fetched``."""
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if candidate not in fetched:
                fetched.update(self._fetch([candidate]))
            if candidate in fetched:
                return candidate
        raise self._nothing_readable(len(self._files))

    def _fetch(self, indices: Iterable[int]) -> dict[int, Tensor]:
        """The clips at ``indices``, each ``uint8 [3, T, H, W]``, but for those that cannot be read."""
        wanted = sorted(set(indices))
        fetched = {index: clip for index in wanted if (clip := self._cache.get(index)) is not None}
        missing = set(wanted) - fetched.keys()
        for index in sorted(missing):
            # An earlier index may have brought this one along.
            if index not in fetched and index not in self._unreadable:
                for neighbour, clip in self._decode_stretch(index).items():
                    self._cache.put(neighbour, clip)
                    if neighbour in missing:
                        fetched[neighbour] = clip
        return fetched

    def _decode_stretch(self, index: int) -> dict[int, Tensor]:
        """Decodes the clip at ``index`` and those of its stretch of the file; empty if that cannot be done."""
        file = self._file_of(index)
        clips_per_stretch = max(1, _STRETCH_FRAMES // self.frames)
        # Stretches are counted from the beginning of the file; where a lone file is split by time, each split reads
        # only its own part, and damage in one leaves the other alone.
        begin = file.numbers[index - file.offset] // clips_per_stretch * clips_per_stretch
        numbers = range(max(begin, file.numbers.start), min(begin + clips_per_stretch, file.numbers.stop))
        taken = [file.offset + number - file.numbers.start for number in numbers]
        try:
            clips = read_clips(file.path, [number * self.frames for number in numbers], self.frames, self.size)
        except UnreadableVideoError as error:
            self._skip(error, stacklevel=5)
            self._unreadable.update(taken)
            return {}
        return dict(zip(taken, clips, strict=True))

    def _file_of(self, index: int) -> _File:
        return self._files[bisect_right(self._offsets, index) - 1]

    def source_of(self, index: int) -> tuple[Path, int]:
        """Where the clip at ``index`` comes from: the file and the clip's first frame in it.

        Raises:
            IndexError: ``index`` lies outside the source.
        """
        self.check_indices([index])
        file = self._file_of(index)
        return file.path, file.numbers[index - file.offset] * self.frames

    def describe(self) -> str:
        """One line: how many clips of what size, of which split, from which files."""
        files = "1 file" if len(self._files) == 1 else f"{len(self._files)} files"
        return (
            f"VideoClips: {len(self)} {self.split} clips of {self.frames}x{self.size}x{self.size} from {files} of "
            f"{', '.join(self._given)} ({len(self.label_names)} labels, {len(self.skipped)} files skipped)"
        )
