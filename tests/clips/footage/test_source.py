"""LARP's protocol: one clip per video, new at each visit of training and fixed elsewhere; half are mirrored."""

import pickle
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from vaportok_rl.clips import ClipOrigin, ProceduralClips, VideoClips
from vaportok_rl.clips.footage.decoding import first_frame_at

Numbers = Callable[[Tensor], tuple[list[int], bool]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, write_numbered: Callable[..., Path]) -> Path:
    """Videos of 30 frames in several containers, and one shorter than a clip."""
    folder = tmp_path_factory.mktemp("library")
    write_numbered(folder / "a.mp4", 30)
    write_numbered(folder / "b.avi", 30, "mpeg4", ("-bf", "2"))
    write_numbered(folder / "c.avi", 30, "libx264", ("-bf", "2"))
    write_numbered(folder / "d.mkv", 30, "libx264", ("-bf", "3", "-g", "12"))
    write_numbered(folder / "e.mp4", 5)
    return folder


def one_each(folder: Path, seed: int = 0, **options: object) -> VideoClips:
    """All of the library but the one video that has to be held out."""
    return VideoClips(folder, frames=8, size=16, starts="random", seed=seed, test_fraction=0.01, **options)  # type: ignore[arg-type]


def test_outside_training_each_video_gives_one_fixed_clip(library: Path, read_numbers: Numbers) -> None:
    source = one_each(library)
    assert len(source) == 4
    batch = source.batch([3, 0, 1, 2, 0])
    for clip, index in zip(batch.clips, batch.ids.tolist(), strict=True):
        path, first = source.source_of(index)
        n_frames = 5 if path.name == "e.mp4" else 30
        assert read_numbers(clip) == ([min(first + step, n_frames - 1) for step in range(8)], False)
    assert torch.equal(one_each(library).batch([3, 0, 1, 2, 0]).clips, batch.clips)
    firsts = {seed: [one_each(library, seed).source_of(index)[1] for index in range(4)] for seed in range(4)}
    assert len({tuple(first) for first in firsts.values()}) == 4


def test_the_fixed_clip_of_a_video_does_not_depend_on_other_videos(library: Path, tmp_path: Path) -> None:
    before = dict(map(one_each(library).source_of, range(4)))
    shutil.copytree(library, tmp_path / "more")
    shutil.copy(library / "a.mp4", tmp_path / "more" / "0.mp4")
    source = one_each(tmp_path / "more")
    after = {library.resolve() / path.name: first for path, first in map(source.source_of, range(len(source)))}
    assert {path: after[path] for path in before if path in after} == {p: f for p, f in before.items() if p in after}
    assert len(before.keys() & after.keys()) >= 3


def test_training_starts_anywhere_and_mirrors_half(library: Path, read_numbers: Numbers) -> None:
    source = one_each(library)
    index = next(index for index in range(4) if source.source_of(index)[0].name != "e.mp4")
    visits = list(range(230))
    batch = source.training_batch([index] * len(visits), visits, seed=3)
    firsts, mirrored = [], 0
    for clip in batch.clips:
        numbers, flipped = read_numbers(clip)
        assert numbers == list(range(numbers[0], numbers[0] + 8))
        firsts.append(numbers[0])
        mirrored += flipped
    counts = torch.bincount(torch.tensor(firsts), minlength=23)  # starts 0 … 22
    assert len(counts) == 23
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert stats.binomtest(mirrored, len(visits)).pvalue > 1e-3


def test_training_clips_are_a_pure_function_of_seed_index_and_visit(library: Path, read_numbers: Numbers) -> None:
    source = one_each(library)
    indices, visits = [0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 1, 7]
    together = source.training_batch(indices, visits, seed=5)
    assert together.ids.tolist() == indices
    another = pickle.loads(pickle.dumps(source))
    for row in reversed(range(len(indices))):
        alone = another.training_batch([indices[row]], [visits[row]], seed=5)
        assert torch.equal(alone.clips[0], together.clips[row])
    assert not torch.equal(source.training_batch(indices, visits, seed=6).clips, together.clips)
    # Every container gave consecutive frames, wherever it was entered.
    for clip, index in zip(together.clips, indices, strict=True):
        numbers, _ = read_numbers(clip)
        n_frames = 5 if source.source_of(index)[0].name == "e.mp4" else 30
        assert numbers == [min(numbers[0] + step, n_frames - 1) for step in range(8)]
    # Training does not affect clips outside of it.
    assert torch.equal(source.batch([0, 1]).clips, one_each(library).batch([0, 1]).clips)


def test_both_ways_to_start_split_the_files_alike(library: Path) -> None:
    for split in ("train", "test"):
        grid = VideoClips(library, frames=8, size=16, split=split)
        random = VideoClips(library, frames=8, size=16, split=split, starts="random")
        assert {grid.source_of(index)[0] for index in range(len(grid))} == {
            random.source_of(index)[0] for index in range(len(random))
        }


def test_the_grid_is_mirrored_in_training_but_stays_put(library: Path, read_numbers: Numbers) -> None:
    source = VideoClips(library, frames=8, size=16)
    visits = list(range(64))
    batch = source.training_batch([1] * len(visits), visits, seed=0)
    expected = source[1]
    mirrored = 0
    for clip in batch.clips:
        _, flipped = read_numbers(clip)
        assert torch.equal(clip, expected.flip(-1) if flipped else expected)
        mirrored += flipped
    assert stats.binomtest(mirrored, len(visits)).pvalue > 1e-3
    assert torch.equal(source[1], expected)


def test_what_is_no_footage_is_trained_on_as_it_is() -> None:
    source = ProceduralClips(frames=2, size=8)
    assert torch.equal(source.training_batch([3, 1], [0, 9], seed=4).clips, source.batch([3, 1]).clips)


def test_a_video_that_breaks_is_replaced_named_once_and_counted(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library, tmp_path / "copy")
    source = one_each(tmp_path / "copy")
    lost = source.source_of(1)[0]
    lost.write_text("no video any more")
    with pytest.warns(UserWarning, match="Skipped the unreadable video") as told:
        first = source.training_batch([1, 0], [0, 0], seed=0)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert first.ids.tolist() == [2, 0]
    assert list(source.skipped) == [lost]
    second = source.training_batch([1], [1], seed=0)  # no second warning
    assert second.ids.tolist() == [2]
    assert source.batch([1]).ids.tolist() == [2]


def test_a_clip_says_where_it_comes_from(library: Path) -> None:
    source = VideoClips(library, frames=8, size=16)
    assert sum(source.files.values()) == len(source)
    for index in range(len(source)):
        path, first_frame = source.source_of(index)
        assert source.origin(index) == ClipOrigin(str(path), first_frame, library.name)
        assert path in source.files


def test_identity_is_what_decides_the_clips(library: Path, tmp_path: Path) -> None:
    moved = tmp_path / library.name
    shutil.copytree(library, moved)
    same, other_pixels = one_each(library), one_each(moved)
    assert other_pixels.identity == same.identity
    lost = other_pixels.source_of(1)[0]
    assert (
        len({same.identity, *(one_each(library, **change).identity for change in ({"seed": 1}, {"split": "test"}))})
        == 3
    )
    lost.write_bytes(lost.read_bytes()[::-1])
    before = other_pixels.describe(), other_pixels.identity
    with pytest.warns(UserWarning, match="Skipped the unreadable video"):
        other_pixels.training_batch([1], [0], seed=0)
    # The description counts skipped files; the identity, by which runs are resumed, does not.
    assert other_pixels.describe() != before[0]
    assert other_pixels.identity == before[1] != same.identity


def test_first_frames_are_even_and_in_range() -> None:
    assert [first_frame_at(fraction, range(10), 8) for fraction in (0.0, 0.34, 0.67, 0.999)] == [0, 1, 2, 2]
    assert [first_frame_at(fraction, range(5), 8) for fraction in (0.0, 0.999)] == [0, 0]
    assert [first_frame_at(fraction, range(16, 24), 8) for fraction in (0.0, 0.999)] == [16, 16]


def test_consecutive_clips_stay_within_one_video(library: Path) -> None:
    clips = VideoClips(library, frames=4, size=16)
    for length in (1, 2, 3, 50):
        starts = clips.consecutive_starts(length).tolist()
        expected = []
        for first in range(len(clips) - length + 1):
            places = [clips.source_of(index) for index in range(first, first + length)]
            if all(two == (one[0], one[1] + 4) for one, two in pairwise(places)):
                expected.append(first)
        assert starts == expected
    assert len(clips.consecutive_starts(10**6)) == 0


def test_random_starts_have_no_consecutive_clips(library: Path) -> None:
    assert VideoClips(library, frames=4, size=16, starts="random").consecutive_starts(2) is None
