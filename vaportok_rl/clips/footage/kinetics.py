"""Labelled videos listed in CSV files, in plain form or as Kinetics publishes them."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from vaportok_rl.clips.footage.source import FootageClips
from vaportok_rl.clips.footage.splits import ListedVideo, held_out_files
from vaportok_rl.clips.source import Split
from vaportok_rl.runtime.declared import checked
from vaportok_rl.runtime.messages import no_such_path

_PATH_COLUMNS = ("path", "video", "video_path", "file", "filename")
_LABEL_COLUMNS = ("label", "class")
_ID_COLUMN = "youtube_id"
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "test",
    "validate": "test",
    "validation": "test",
}
# What Kinetics downloaders save.
_SUFFIXES = (".mp4", ".mkv", ".webm")


class KineticsCSV(FootageClips):
    """Clips of the videos that one or more CSV files list with their labels.

    Rows are ``path,label`` or ``path,label,split``. With a header, columns may have any order and other columns are
    ignored: ``path`` (or ``video``, ``video_path``, ``file``, ``filename``), ``label`` (or ``class``) and ``split``.
    Paths are relative to ``folder``.

    The published Kinetics lists (``label,youtube_id,time_start,time_end,split``) name no files. There a row stands for
    ``<youtube_id>_<time_start>_<time_end>.mp4`` (or ``.mkv``, ``.webm``), the times in whole seconds with six digits,
    as the usual downloaders save it. The file is in ``folder``, or in a subfolder named after the split, the label
    (with spaces or underscores), or the split and then the label.

    The ``split`` column says ``train``, or ``test``, ``val`` or ``validate`` for held out. Without it, a hash of the
    listed path decides (see `held_out_files`), and a single video is split by time. Labels are the sorted names
    (numbers by size) of all rows, whether or not their files exist: list both splits, in one CSV or several.

    By default each video gives one clip, as `VideoClips` with ``starts="random"`` does; files are then opened when they
    are first read. Frames, damage and training are as described there.

    Args:
        csv_files: one CSV file or several; ``~`` is expanded.
        folder: the folder of the listed paths; by default each CSV's own.
        test_fraction: share of the videos to hold out without a split column, in (0, 1).
        **options: see `FootageOptions`; ``starts`` is ``"random"`` by default.

    Raises:
        FileNotFoundError: a CSV is missing, or all listed videos are (with ``on_error="raise"``, any).
        UnreadableVideoError: (a ``ValueError``) no video can be read, or one cannot and ``on_error="raise"``.
        ValueError: a CSV is empty or malformed, lists a video twice with different labels or splits, or lists none of
            this split; or an argument is outside its range.

    Warns:
        UserWarning: videos were skipped.
    """

    @checked
    def __init__(
        self,
        csv_files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        folder: str | os.PathLike[str] | None = None,
        test_fraction: float = 0.2,
        **options: Any,
    ) -> None:
        given = [csv_files] if isinstance(csv_files, str | os.PathLike) else list(csv_files)
        if not given:
            raise ValueError("Expected at least one CSV file, got an empty list; pass a path.")
        videos: dict[Path, ListedVideo] = {}
        for name in given:
            path = Path(name).expanduser()
            for video in _read_csv(path, Path(folder).expanduser() if folder is not None else path.parent):
                known = videos.setdefault(video.path, video)
                if known != video:
                    raise ValueError(
                        f"Expected each video once or with one label and split, got {video.key} as {known.label!r} "
                        f"({known.split}) and as {video.label!r} ({video.split}); correct {path}."
                    )
        options.setdefault("starts", "random")
        super().__init__(
            _split(list(videos.values()), test_fraction),
            ", ".join(os.fspath(name) for name in given),
            _in_order({video.label for video in videos.values()}),
            test_fraction=test_fraction,
            **options,
        )


def _split(videos: list[ListedVideo], test_fraction: float) -> list[ListedVideo]:
    """Decides the splits from the list alone, so that a missing or damaged video moves no other."""
    given = sum(video.split is not None for video in videos)
    if given == len(videos) or len(videos) == 1:
        return videos
    if given:
        raise ValueError(
            f"Expected a split for every video or for none, got one for {given} of {len(videos)}; give all the CSV "
            "files a split column."
        )
    flags = held_out_files([video.key for video in videos], test_fraction)
    return [replace(video, split="test" if flag else "train") for video, flag in zip(videos, flags, strict=True)]


def _in_order(labels: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _read_csv(path: Path, folder: Path) -> list[ListedVideo]:
    """The rows of a CSV file; at least one."""
    if not path.is_file():
        raise no_such_path("a CSV file with the columns path,label", str(path), "is no file")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        try:
            rows = [(f"{path}, line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if any(row)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"Expected CSV text in UTF-8, got {path} ({error}); save it as such.") from error
    columns = _header(path, rows[0][1]) if rows else None
    if columns is not None:
        rows = rows[1:]
    if not rows:
        raise ValueError(f"Expected {path} to list videos as path,label, got no rows; list at least one video.")
    return [_video(folder, place, row, columns or {"path": 0, "label": 1, "split": 2}) for place, row in rows]


def _header(path: Path, row: list[str]) -> dict[str, int] | None:
    """Positions of the columns, if the first row names them."""
    names = [name.lower() for name in row]
    columns = {name: position for position, name in enumerate(names) if name in ("split", "time_start", "time_end")}
    for meaning, known in (("path", (*_PATH_COLUMNS, _ID_COLUMN)), ("label", _LABEL_COLUMNS)):
        found = [name for name in known if name in names]
        if found:
            columns[_ID_COLUMN if found[0] == _ID_COLUMN else meaning] = names.index(found[0])
    if not columns.keys() & {"path", _ID_COLUMN}:
        return None
    needed = {"label"} if "path" in columns else {"label", "time_start", "time_end"}
    if not needed <= columns.keys():
        raise ValueError(
            f"Expected a header with path and label, or Kinetics' own ({_ID_COLUMN}, time_start, time_end, label), got "
            f"{','.join(row)!r} in {path}; name the missing column {sorted(needed - columns.keys())[0]!r}."
        )
    return columns


def _video(folder: Path, place: str, row: list[str], columns: Mapping[str, int]) -> ListedVideo:
    cells = {name: row[position] for name, position in columns.items() if position < len(row)}
    label, split_name = cells.get("label", ""), cells.get("split", "").lower()
    file = cells.get("path") or cells.get(_ID_COLUMN, "")
    if not file or not label:
        raise ValueError(
            f"Expected a video and a label, separated by a comma, got {','.join(row)!r} ({place}); complete the row."
        )
    split = _SPLITS.get(split_name)
    if split is None and split_name:
        raise ValueError(f"Expected a split among {', '.join(_SPLITS)}, got {split_name!r} ({place}); correct it.")
    if "path" in cells:
        path = folder / Path(file).expanduser()
        return ListedVideo(path.absolute(), PurePath(file).as_posix(), label, split)
    try:
        start, end = (round(float(cells[name])) for name in ("time_start", "time_end"))
    except (KeyError, ValueError):
        raise ValueError(
            f"Expected time_start and time_end in seconds, got {','.join(row)!r} ({place}); correct the row."
        ) from None
    stem = f"{file}_{start:06d}_{end:06d}"
    return ListedVideo(_find_published(folder.absolute(), stem, label, split_name), stem, label, split)


def _find_published(folder: Path, stem: str, label: str, split_name: str) -> Path:
    """The file of a published row in one of the usual places; the first place if it is in none of them."""
    labels = [Path(), Path(label), Path(label.replace(" ", "_"))]
    places = [place / name for place in dict.fromkeys((folder, folder / split_name)) for name in labels]
    candidates = [place / f"{stem}{suffix}" for place in dict.fromkeys(places) for suffix in _SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
