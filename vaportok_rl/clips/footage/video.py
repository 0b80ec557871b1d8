"""Clips out of the video files a user has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Unpack

from vaportok_rl.clips.footage.listed_video import ListedVideo
from vaportok_rl.clips.footage.source import FootageClips, FootageOptions
from vaportok_rl.clips.footage.splits import find_videos
from vaportok_rl.runtime.declared import checked


class VideoClips(FootageClips):
    """Clips of consecutive frames, at native rate, from video files on disk.

    With ``starts="grid"`` a file gives non-overlapping clips of ``frames`` frames. A remainder shorter than a clip is
    dropped, unless the whole file is shorter, which then gives one clip with its last frame repeated. With
    ``starts="random"`` a file gives one clip, which in training begins elsewhere at every visit and otherwise at one
    place that ``seed`` decides: the protocol for many short videos, where the grid is for few long ones. In training
    half of the clips are mirrored in either case.

    The shorter side of a frame is resized to ``size`` (bilinear, antialiased) and the central square cut out. Greyscale
    becomes RGB, transparency is ignored. A clip's label is the name of the folder its file lies in.

    The split is by file, by a hash of the file's path below the folder given (see `held_out_files`): it does not
    depend on the machine, on the order of the paths, or (but for the case documented there) on other files. A lone
    readable file is split by time instead: the beginning is trained on, the end held out.

    Every file is opened and its first and last clip are decoded at construction. Damage further inside shows only
    when the clip is asked for: its index then delivers the next readable clip, and ``ids`` says which one that is.
    Damage makes a whole stretch (512 frames) of the grid unreadable, as the decoder does not say exactly where it
    begins; whether a random start just before it can be read may for the same reason differ from run to run.

    Args:
        path: a video file, a folder (searched recursively for `VIDEO_SUFFIXES`), a glob pattern, or a sequence of
            these. ``~`` is expanded, duplicates count once.
        test_fraction: share of the files (of the clips, if there is a lone file) to hold out, in (0, 1).
        fold: ``(number, of)`` to hold out that fold of a cross-validation instead, whole files as well: over all folds
            each file is held out once, and the folds hold about equally many clips.
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
        **options: Unpack[FootageOptions],
    ) -> None:
        given = [os.fspath(path)] if isinstance(path, str | os.PathLike) else [os.fspath(one) for one in path]
        super().__init__(
            [ListedVideo(video.path, video.key, video.path.parent.name) for video in find_videos(given)],
            ", ".join(given),
            test_fraction=test_fraction,
            fold=fold,
            **options,
        )
