"""Finding files, and a split that stays put when files are added."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaportok_rl.clips.footage.splits import clips_of_split, find_videos, fraction_of, held_out_files, held_out_fold

KEYS = st.text(alphabet="abcdefgh/_0123456789é", min_size=1, max_size=12)
FRACTIONS = st.floats(min_value=0.01, max_value=0.99)


def place(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_fractions_are_fixed_for_all_time() -> None:
    # Published splits depend on these values: if they change, users' held-out files do.
    assert fraction_of("a.mp4") == pytest.approx(0.90168, abs=1e-5)
    assert fraction_of("pancakes/flip.mkv") == pytest.approx(0.00602, abs=1e-5)


def test_fractions_are_uniform() -> None:
    fractions = [fraction_of(f"class_{index % 7}/clip_{index}.mp4") for index in range(4000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert sum(fraction < 0.2 for fraction in fractions) / 4000 == pytest.approx(0.2, abs=0.025)


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.lists(KEYS, min_size=2, max_size=12), FRACTIONS)
def test_neither_split_is_empty(keys: list[str], test_fraction: float) -> None:
    flags = held_out_files(keys, test_fraction)
    assert len(flags) == len(keys)
    assert any(flags)
    assert not all(flags)


@settings(deadline=None)
@given(
    st.lists(KEYS, min_size=2, max_size=10, unique=True),
    st.lists(KEYS, min_size=1, max_size=10, unique=True),
    FRACTIONS,
)
def test_adding_files_moves_nobody_but_a_stopgap(old: list[str], new: list[str], test_fraction: float) -> None:
    before = dict(zip(old, held_out_files(old, test_fraction), strict=True))
    together = sorted(set(old) | set(new))
    after = dict(zip(together, held_out_files(together, test_fraction), strict=True))
    moved = [key for key in old if before[key] != after[key]]
    for key in moved:
        if before[key]:  # was held out only as the smallest, and a smaller one came
            assert all(fraction_of(other) >= test_fraction for other in old)
            assert key == min(old, key=fraction_of)
            assert min(map(fraction_of, together)) < fraction_of(key)
        else:
            assert all(fraction_of(other) < test_fraction for other in old)
            assert key == max(old, key=fraction_of)
            assert max(map(fraction_of, together)) > fraction_of(key)
    # In particular no file moves once each split has a file by its hash alone.
    if any(fraction_of(key) < test_fraction for key in old) and any(fraction_of(key) >= test_fraction for key in old):
        assert not moved


@settings(deadline=None)
@given(st.integers(1, 500), FRACTIONS)
def test_a_lone_file_is_split_by_time(n_clips: int, test_fraction: float) -> None:
    train, test = (clips_of_split(n_clips, split, test_fraction) for split in ("train", "test"))
    if n_clips == 1:
        assert list(train) == list(test) == [0]
    else:
        assert len(train) >= 1
        assert len(test) >= 1
        assert [*train, *test] == list(range(n_clips))
        assert abs(len(test) - n_clips * test_fraction) <= 1


def test_eighty_percent_of_ten_is_eight() -> None:
    assert list(clips_of_split(10, "train", 0.2)) == list(range(8))


@pytest.mark.parametrize("test_fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_test_fraction_must_lie_inside(test_fraction: float) -> None:
    with pytest.raises(ValueError, match=r"Expected test_fraction .* got .*; pass"):
        held_out_files(["a", "b"], test_fraction)
    with pytest.raises(ValueError, match="Expected test_fraction"):
        clips_of_split(5, "train", test_fraction)


def test_too_few_to_split() -> None:
    with pytest.raises(ValueError, match="at least two files"):
        held_out_files(["a"], 0.2)
    with pytest.raises(ValueError, match="at least one clip"):
        clips_of_split(0, "train", 0.2)


def test_folders_are_searched_at_any_depth_and_keyed_from_the_folder(tmp_path: Path) -> None:
    place(tmp_path, ["b.MP4", "run/a.avi", "run/deep/c.webm", "notes.txt", "x.gif", "._b.mp4", ".cache/d.mp4"])
    found = find_videos([tmp_path])
    assert [video.key for video in found] == ["b.MP4", "run/a.avi", "run/deep/c.webm"]
    assert [video.path for video in found] == [tmp_path.resolve() / video.key for video in found]


def test_the_split_does_not_depend_on_where_the_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, ["here/run/a.avi", "there/run/a.avi"])
    monkeypatch.chdir(tmp_path / "here")
    keys = {find_videos([folder])[0].key for folder in (".", "../there", tmp_path / "there", "run/..")}
    assert keys == {"run/a.avi"}


def test_duplicates_count_once_and_order_does_not_matter(tmp_path: Path) -> None:
    place(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    given_twice = find_videos([tmp_path / "b.mp4", tmp_path, str(tmp_path / "*.mp4"), tmp_path / "a.mp4"])
    assert [video.key for video in given_twice] == ["a.mp4", "b.mp4"]
    assert find_videos([tmp_path / "b.mp4", tmp_path / "a.mp4"]) == given_twice


def test_glob_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, ["one/a.mp4", "two/b.mp4", "two/readme.md"])
    assert [video.key for video in find_videos([str(tmp_path / "*" / "*.mp4")])] == ["a.mp4", "b.mp4"]
    assert [video.key for video in find_videos([str(tmp_path / "t*" / "*")])] == ["b.mp4"]
    assert [video.key for video in find_videos([str(tmp_path / "t*")])] == ["b.mp4"]
    assert [video.key for video in find_videos([str(tmp_path / "**" / "*.mp4")])] == ["a.mp4", "b.mp4"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [video.key for video in find_videos(["~/one/a.mp4"])] == ["a.mp4"]
    assert [video.key for video in find_videos(["~/*/b*"])] == ["b.mp4"]


def test_brackets_in_a_file_name_are_not_a_pattern(tmp_path: Path) -> None:
    place(tmp_path, ["take[1].mp4"])
    assert [video.key for video in find_videos([tmp_path / "take[1].mp4"])] == ["take[1].mp4"]


def test_a_file_named_outright_may_have_any_suffix(tmp_path: Path) -> None:
    place(tmp_path, ["recording.bin"])
    assert [video.key for video in find_videos([tmp_path / "recording.bin"])] == ["recording.bin"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    place(tmp_path, ["elsewhere/a.mp4", "data/b.mp4"])
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    assert [video.key for video in find_videos([tmp_path / "data"])] == ["b.mp4", "linked/a.mp4"]


def test_missing_paths_say_what_to_do(tmp_path: Path) -> None:
    place(tmp_path, ["text/notes.txt"])
    with pytest.raises(FileNotFoundError, match=r"Expected a video file.*does not exist.*check the spelling"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"Expected a folder with video files .*\.mp4.*holds none.*pass"):
        find_videos([tmp_path / "text"])
    with pytest.raises(FileNotFoundError, match=r"Expected a glob pattern.*matches none.*correct"):
        find_videos([str(tmp_path / "text" / "*")])
    with pytest.raises(ValueError, match="at least one"):
        find_videos([])


def test_paths_may_be_path_like(tmp_path: Path) -> None:
    class Mine(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path)

    place(tmp_path, ["a.mp4"])
    assert len(find_videos([Mine()])) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, st.integers(1, 40)), min_size=2, max_size=12), st.integers(2, 4))
def test_over_the_folds_each_file_is_held_out_once(files: list[tuple[str, int]], folds: int) -> None:
    if len(files) < folds:
        with pytest.raises(ValueError, match="Expected at least one readable file a fold"):
            held_out_fold(files, (1, folds))
        return
    flags = [held_out_fold(files, (number, folds)) for number in range(1, folds + 1)]
    assert [sum(column) for column in zip(*flags, strict=True)] == [1] * len(files)
    assert all(any(fold) for fold in flags)
    # Longest first: no fold exceeds another by more than its own shortest file.
    held = [[clips for (_, clips), flag in zip(files, fold, strict=True) if flag] for fold in flags]
    assert max(sum(one) - min(one) for one in held) <= min(sum(one) for one in held)


def test_folds_of_a_known_folder_are_balanced() -> None:
    files = [("a", 19), ("b", 18), ("c", 17), ("d", 15), ("e", 8), ("f", 4), ("g", 1), ("h", 1)]
    held = [
        {name for (name, _), flag in zip(files, held_out_fold(files, (number, 3)), strict=True) if flag}
        for number in (1, 2, 3)
    ]
    assert held == [{"a", "f", "g", "h"}, {"b", "e"}, {"c", "d"}]


@pytest.mark.parametrize("fold", [(0, 3), (4, 3), (1, 1), (1, 0)])
def test_folds_out_of_range_are_refused(fold: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"Expected a fold such as 1/3, 2/3 or 3/3, got"):
        held_out_fold([("a", 1), ("b", 1), ("c", 1)], fold)
