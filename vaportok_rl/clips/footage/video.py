"""Clips out of the video files a user has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from vaportok_rl.clips.footage.source import FootageClips
from vaportok_rl.clips.footage.splits import find_videos
from vaportok_rl.runtime.declared import checked


class VideoClips(FootageClips):
    """Clips of consecutive frames, at native rate, from video files on disk.

    ``starts="grid"`` is for few long videos: a file gives non-overlapping clips of ``frames`` frames. The remainder is
    dropped, but a file shorter than a clip gives one clip with its last frame repeated. ``starts="random"`` is for many
    short videos: a file gives one clip, which begins at a new random frame at each visit of training, and otherwise at
    a frame that ``seed`` decides. Either way half of the training clips are mirrored.

    The shorter side of a frame is resized to ``size`` (bilinear, antialiased) and the central square cut out. Greyscale
    becomes RGB; transparency is ignored. A clip's label is the name of its file's folder.

    The split is by file: a hash of the file's path below the given folder decides (see `held_out_files`). The machine
    and the order of the paths do not matter. A single readable file is split by time: its end is held out.

    At construction every file is opened and its first and last clip decoded. Damage elsewhere is found when the clip is
    read: its index then gives the next readable clip, and ``ids`` tells which one. On the grid, damage makes a stretch
    of 512 frames unreadable, because the decoder does not say exactly where it begins. For the same reason a random
    start just before the damage may be readable in one run and not in another.

    Args:
        path: a video file, a folder (searched recursively for `VIDEO_SUFFIXES`), a glob pattern, or a sequence of
            these. ``~`` is expanded, duplicates count once.
        test_fraction: share of the files (of a single file, of its clips) to hold out, in (0, 1).
        fold: ``(number, of)`` holds out one fold of a cross-validation by files instead; see `held_out_fold`.
        **options: see `FootageOptions`.

    Attributes:
        skipped: for each file in which something could not be read, the reason.

    Raises:
        FileNotFoundError: a path does not exist, or there are no videos there.
        UnreadableVideoError: (a ``ValueError``) no file can be read, or one cannot and ``on_error="raise"``.
        ValueError: an argument outside its range.

    Warns:
        UserWarning: a file was skipped, or the only readable file holds a single clip and serves both splits.
    """

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        test_fraction: float = 0.2,
        fold: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        given = [os.fspath(path)] if isinstance(path, str | os.PathLike) else [os.fspath(one) for one in path]
        super().__init__(
            find_videos(given),
            ", ".join(given),
            test_fraction=test_fraction,
            fold=fold,
            **options,
        )
