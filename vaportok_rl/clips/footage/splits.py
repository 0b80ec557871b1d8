"""Finds the video files behind a user's paths and splits them into training and held-out clips."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaportok_rl.clips.source import Split
from vaportok_rl.runtime.messages import no_such_path

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".vob"),
    *(".webm", ".wmv"),
)
"""File endings that folders and glob patterns are searched for, in upper or lower case."""


@dataclass(frozen=True)
class ListedVideo:
    """A video file of a data set.

    Attributes:
        path: the file; it need not exist.
        key: its name within the data set: the path below the folder that the user gave, or the file's name. Moving the
            data set does not change it, and so not the split.
        label: its class.
        split: the split it belongs to, or None to decide by a hash of the key.
    """

    path: Path
    key: str
    label: str
    split: Split | None = None


def check_test_fraction(test_fraction: float) -> float:
    """Returns ``test_fraction`` if it lies strictly between 0 and 1.

    Raises:
        ValueError: it does not.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"Expected test_fraction strictly between 0 and 1, got {test_fraction!r}; "
            "pass the share of files to hold out, for instance test_fraction=0.2."
        )
    return test_fraction


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[ListedVideo]:
    """Expands files, folders and glob patterns into video files.

    Folders are searched recursively and through symbolic links. Names that begin with a dot are left out (such as the
    ``._clip.mp4`` files that macOS writes). A file that is named itself may have any suffix. A file found twice counts
    once, under the first of ``paths`` that leads to it.

    Args:
        paths: files, folders and glob patterns (``**`` allowed); ``~`` is expanded.

    Returns:
        The files, sorted by path; each one's label is the name of its folder.

    Raises:
        FileNotFoundError: an entry does not exist, matches nothing, or is a folder without videos.
        ValueError: ``paths`` is empty.
    """
    if not paths:
        raise ValueError("Expected at least one video file, folder or glob pattern, got an empty list; pass a path.")
    found: dict[str, ListedVideo] = {}
    for path in paths:
        for video in _expand(os.fspath(path)):
            found.setdefault(os.path.realpath(video.path), video)  # unlike Path.resolve, of a link to itself too
    return sorted(found.values(), key=lambda video: video.path.as_posix())


def _expand(text: str) -> list[ListedVideo]:
    """The videos one path or pattern stands for; at least one."""
    path = Path(text).expanduser()
    suffixes = ", ".join(VIDEO_SUFFIXES)
    if path.is_dir():
        videos = list(_walk(path))
        if not videos:
            raise FileNotFoundError(
                f"Expected a folder with video files ({suffixes}), got {text!r}, which holds none, at any depth; "
                "pass the folder that holds the videos."
            )
        return videos
    if path.exists():  # before the pattern test: "take[1].mp4" is a legal file name
        return [_single(path)]
    if any(character in text for character in "*?["):
        videos = []
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        for match in map(Path, matches):
            if match.is_dir():
                videos.extend(_walk(match))
            elif match.suffix.lower() in VIDEO_SUFFIXES:
                videos.append(_single(match))
        if not videos:
            raise FileNotFoundError(
                f"Expected a glob pattern that matches video files ({suffixes}), got {text!r}, which matches none "
                f"(working directory {Path.cwd()}); correct the pattern."
            )
        return videos
    raise no_such_path("a video file, a folder or a glob pattern", text, "does not exist")


def _single(path: Path) -> ListedVideo:
    # Only the folder is resolved: a link's own name is the one the user knows the video by.
    folder = path.parent.resolve()
    return ListedVideo(folder / path.name, path.name, folder.name)


def _walk(folder: Path) -> Iterator[ListedVideo]:
    """All videos under a folder. A folder that links lead to twice is entered once, so loops end."""
    root = folder.resolve()
    entered: set[Path] = set()
    for place, subfolders, names in os.walk(root, followlinks=True):
        here = Path(place)
        if here.resolve() in entered:
            subfolders.clear()
            continue
        entered.add(here.resolve())
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield ListedVideo(here / name, (here / name).relative_to(root).as_posix(), here.name)


def fraction_of(key: str) -> float:
    """A number in [0, 1) that depends on ``key`` alone: the same on every machine and in every process."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    # 53 bits are what a double holds exactly; with 64 the largest hashes would round up to 1.0.
    return float((int.from_bytes(digest[:8], "big") >> 11) / 2**53)


def held_out_files(keys: Iterable[str], test_fraction: float) -> list[bool]:
    """Decides for each of two or more files whether it is held out.

    A file is held out if the hash of its name, as a number in [0, 1), is below ``test_fraction``; other files do not
    matter. There is one exception, so that neither split is empty: the smallest hash is always held out, the largest
    always trained on. Only a file in one of these two places can move to the other split when files are added. With
    ten files and the default of 0.2 there is a chance of about 11 % that no hash is below ``test_fraction``.

    Args:
        keys: one name a file; equal names (possible for files given one by one) rank in the order given.
        test_fraction: expected share of held-out files.

    Returns:
        One flag a file, in the order of ``keys``; at least one True and one False.

    Raises:
        ValueError: fewer than two files, or ``test_fraction`` outside (0, 1).
    """
    check_test_fraction(test_fraction)
    fractions = [fraction_of(key) for key in keys]
    if len(fractions) < 2:
        raise ValueError(
            f"Expected at least two files to split by file, got {len(fractions)}; split a single file by time "
            "with clips_of_split."
        )
    ranked = sorted(range(len(fractions)), key=lambda position: (fractions[position], position))
    flags = [fraction < test_fraction for fraction in fractions]
    flags[ranked[0]] = True
    flags[ranked[-1]] = False
    return flags


def held_out_fold(files: Sequence[tuple[str, int]], fold: tuple[int, int]) -> list[bool]:
    """Which files one fold of a cross-validation holds out: over all folds each file is held out once.

    Longest first, each file goes to the fold with the fewest clips so far, so that the folds are about equal. Unlike
    with `held_out_files`, adding files may move others.

    Args:
        files: name and number of clips of each.
        fold: ``(number, of)``, the number from 1.

    Returns:
        One flag a file, in the order of ``files``; at least one True and one False.

    Raises:
        ValueError: not ``1 ≤ number ≤ of``, fewer than two folds, or fewer files than folds.
    """
    number, folds = fold
    if not (folds >= 2 and 1 <= number <= folds):
        raise ValueError(f"Expected a fold such as 1/3, 2/3 or 3/3, got {number}/{folds}; count from 1.")
    if len(files) < folds:
        raise ValueError(f"Expected at least one readable file a fold, got {len(files)} for {folds}; ask for fewer.")
    load = [(0, 0)] * folds  # clips and files of each fold: an empty one comes first even where files hold no clips
    held_out = [False] * len(files)
    for position in sorted(range(len(files)), key=lambda one: (-files[one][1], fraction_of(files[one][0]), one)):
        emptiest = load.index(min(load))
        load[emptiest] = load[emptiest][0] + files[position][1], load[emptiest][1] + 1
        held_out[position] = emptiest == number - 1
    return held_out


def clips_of_split(n_clips: int, split: Split, test_fraction: float) -> range:
    """The clips of a single file that belong to a split: the beginning is trained on, the end held out.

    Args:
        n_clips: clips the file holds, at least 1.
        split: which part.
        test_fraction: share of clips to hold out.

    Returns:
        Clip numbers within the file, never empty. With one clip both splits get it; with more they are disjoint.

    Raises:
        ValueError: ``n_clips`` below 1, or ``test_fraction`` outside (0, 1).
    """
    check_test_fraction(test_fraction)
    if n_clips < 1:
        raise ValueError(f"Expected a file with at least one clip, got {n_clips}; leave empty files out.")
    if n_clips == 1:
        return range(1)
    n_train = min(max(round(n_clips * (1 - test_fraction)), 1), n_clips - 1)
    return range(n_train) if split == "train" else range(n_train, n_clips)
