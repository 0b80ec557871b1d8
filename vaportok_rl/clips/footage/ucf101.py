"""UCF101, from the official folder and by the official train/test lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vaportok_rl.clips.footage.source import FootageClips
from vaportok_rl.clips.footage.splits import ListedVideo
from vaportok_rl.runtime.declared import checked
from vaportok_rl.runtime.messages import no_such_path

_LISTS = "ucfTrainTestlist"
_VIDEOS = "UCF-101"


class UCF101(FootageClips):
    """Clips of UCF101 (Soomro, Zamir and Shah, 2012): 13,320 videos in 101 classes of human action.

    Expects the two official archives, unpacked: a folder of ``.avi`` files per class, and ``ucfTrainTestlist`` with
    ``classInd.txt``, ``trainlist01.txt``, ``testlist01.txt`` and so on. The class folders may be in a subfolder
    ``UCF-101``, and the lists in the given folder or beside it.

    A label is the class number of ``classInd.txt`` minus one. By default each video gives one clip, as `VideoClips`
    with ``starts="random"`` does; files are then opened when they are first read. Frames, damage and training are as
    described there.

    Args:
        folder: where the class folders are; ``~`` is expanded.
        fold: which of the three official splits, 1, 2 or 3.
        **options: see `FootageOptions`; ``starts`` is ``"random"`` by default.

    Raises:
        FileNotFoundError: the folder or a list is missing, or all listed videos are (with ``on_error="raise"``, any).
        UnreadableVideoError: (a ``ValueError``) no video can be read, or one cannot and ``on_error="raise"``.
        ValueError: a list is empty, malformed or contradicts another, or an argument is outside its range.

    Warns:
        UserWarning: videos were skipped.
    """

    @checked
    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fold: int = 1,
        **options: Any,
    ) -> None:
        if fold not in (1, 2, 3):
            raise ValueError(f"Expected fold 1, 2 or 3 (the official splits of UCF101), got {fold!r}; pass fold=1.")
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise no_such_path("the folder of UCF101", str(folder), "is no folder")
        lists = _find_lists(root)
        videos_folder = (root / _VIDEOS if (root / _VIDEOS).is_dir() else root).resolve()
        classes = _read_classes(lists / "classInd.txt")
        videos: list[ListedVideo] = []
        listed_in: dict[str, str] = {}
        for part, name in (("train", f"trainlist0{fold}.txt"), ("test", f"testlist0{fold}.txt")):
            for key, label in _read_list(lists / name, classes):
                if listed_in.setdefault(key, name) != name:
                    raise ValueError(
                        f"Expected each video in one split, got {key} in {listed_in[key]} and {name} of {lists}; "
                        "restore the official lists."
                    )
                videos.append(ListedVideo(videos_folder / key, key, label, "train" if part == "train" else "test"))
        options.setdefault("starts", "random")
        super().__init__(videos, f"{folder} (fold {fold})", tuple(classes), **options)
        self.fold = fold


def _find_lists(root: Path) -> Path:
    for place in (root, root.resolve().parent):
        if (place / _LISTS).is_dir():
            return place / _LISTS
    raise FileNotFoundError(
        f"Expected {_LISTS} in {root} or beside it, found neither; unpack the official "
        "UCF101TrainTestSplits-RecognitionTask archive there, or open the videos without it as a folder of videos."
    )


def _read_lines(path: Path) -> list[tuple[str, list[str]]]:
    """The non-empty lines of a list, each as its place (for messages) and its words."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected the list {path.name} in {path.parent}, which does not hold it; unpack the official lists there."
        ) from None
    lines = [(f"{path}, line {row}", line.split()) for row, line in enumerate(text.splitlines(), start=1)]
    lines = [(place, words) for place, words in lines if words]
    if not lines:
        raise ValueError(f"Expected {path} to list something, got an empty file; restore the official lists.")
    return lines


def _read_classes(path: Path) -> list[str]:
    """The class names in the order of their numbers, which count from 1."""
    numbers: dict[str, int] = {}
    for place, words in _read_lines(path):
        if len(words) != 2 or not words[0].isdecimal() or words[1] in numbers:
            raise ValueError(
                f"Expected 'number ClassName', each class once, got {' '.join(words)!r} ({place}); restore the "
                "official lists."
            )
        numbers[words[1]] = int(words[0])
    if sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
        raise ValueError(
            f"Expected the classes in {path} to be numbered 1…{len(numbers)}, got {sorted(numbers.values())}; restore "
            "the official lists."
        )
    return sorted(numbers, key=numbers.__getitem__)


def _read_list(path: Path, classes: list[str]) -> list[tuple[str, str]]:
    """The listed videos, each as its path below the videos' folder and its class, once each."""
    videos: dict[str, str] = {}
    for place, (key, *number) in _read_lines(path):
        label = key.partition("/")[0]
        if label not in classes or "/" not in key:
            raise ValueError(
                f"Expected 'ClassName/video.avi' with a class of classInd.txt, got {key!r} ({place}); restore the "
                "official lists."
            )
        expected = str(classes.index(label) + 1)
        if number not in ([], [expected]):  # the test lists give no numbers
            raise ValueError(
                f"Expected class number {expected} for {key}, as classInd.txt has it, got {' '.join(number)!r} "
                f"({place}); restore the official lists."
            )
        videos[key] = label
    return list(videos.items())
