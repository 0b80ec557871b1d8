"""Clips from video files: frames, splits, labels, and unreadable files."""

import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from vaportok_rl.clips.cache import ClipCache
from vaportok_rl.clips.footage import source as footage_module
from vaportok_rl.clips.footage.decoding import UnreadableVideoError, open_video, read_clips
from vaportok_rl.clips.footage.video import VideoClips

REAL_CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
needs_real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips (../shared/clips) are missing")


def write_video(path: Path, n_frames: int) -> Path:
    """Flat grey frames, each 5 levels (codecs blur less) from the next; the levels recur after 40 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer: Any = imageio.get_writer(path, format="FFMPEG", fps=25, codec="libx264", quality=9)
    with writer:
        for frame in range(n_frames):
            writer.append_data(np.full((48, 64, 3), 20 + 5 * (frame % 40), dtype=np.uint8))
    return path


def write_damaged_video(path: Path) -> Path:
    """96 frames of noise with a hole in the middle: the first and the last clip decode, others do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(5)
    options = ["-g", "12"]
    writer: Any = imageio.get_writer(path, format="FFMPEG", fps=25, codec="libx264", quality=7, output_params=options)
    with writer:
        for _ in range(96):
            writer.append_data(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    return path


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """The numbers, modulo 40, of the frames of a clip ``[3, T, H, W]`` that `write_video` made."""
    return [round((mean - 20) / 5) for mean in clip.float().mean(dim=(0, 2, 3)).tolist()]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files in two classes, of 20, 25, … 45 frames."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(6):
        write_video(folder / ("juggling", "archery")[number % 2] / f"v{number}.mp4", 20 + 5 * number)
    return folder


def test_clips_are_consecutive_and_do_not_overlap(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 43)
    with_train = VideoClips(tmp_path / "a.mp4", frames=8, size=16, test_fraction=0.4)
    held_out = VideoClips(tmp_path / "a.mp4", frames=8, size=16, test_fraction=0.4, split="test")
    assert (len(with_train), len(held_out)) == (3, 2)  # five whole clips; frames 40–42 are dropped
    numbers = [frame_numbers(source[index]) for source in (with_train, held_out) for index in range(len(source))]
    assert numbers == [list(range(first, first + 8)) for first in (0, 8, 16, 24, 32)]
    assert [held_out.source_of(index) for index in range(2)] == [((tmp_path / "a.mp4").resolve(), f) for f in (24, 32)]


def test_a_batch_has_the_promised_shapes(library: Path) -> None:
    source = VideoClips(library, frames=4, size=24)
    batch = source.batch(torch.tensor([2, 0, 2]))
    assert batch.clips.shape == (3, 3, 4, 24, 24)
    assert (batch.clips.dtype, batch.labels.dtype, batch.ids.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert batch.ids.tolist() == [2, 0, 2]
    assert torch.equal(batch.clips[0], batch.clips[2])
    assert torch.equal(batch.clips[1], source[0])
    assert source.batch([]).clips.shape == (0, 3, 4, 24, 24)
    with pytest.raises(IndexError, match="Expected clip indices"):
        source.batch([len(source)])
    with pytest.raises(IndexError):
        source.source_of(-1)


def test_labels_are_folder_names_and_shared_by_both_splits(library: Path) -> None:
    train, test = (VideoClips(library, frames=8, split=split) for split in ("train", "test"))
    assert train.label_names == test.label_names == ("archery", "juggling")
    for source in (train, test):
        batch = source.batch(range(len(source)))
        for index, label in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            assert source.label_names[label] == source.source_of(index)[0].parent.name


def test_the_two_splits_share_no_file_and_lose_none(library: Path) -> None:
    train, test = (VideoClips(library, frames=8, split=split) for split in ("train", "test"))
    files = [{source.source_of(index)[0] for index in range(len(source))} for source in (train, test)]
    assert not files[0] & files[1]
    assert files[0] | files[1] == {path.resolve() for path in library.rglob("*.mp4")}
    assert len(train) + len(test) == sum((20 + 5 * number) // 8 for number in range(6))


def test_folds_hold_out_each_file_once_and_train_on_the_rest(library: Path) -> None:
    every = {path.resolve() for path in library.rglob("*.mp4")}
    seen: list[Path] = []
    for number in (1, 2, 3):
        train, test = (VideoClips(library, frames=8, split=split, fold=(number, 3)) for split in ("train", "test"))
        held = {test.source_of(index)[0] for index in range(len(test))}
        assert {train.source_of(index)[0] for index in range(len(train))} == every - held
        seen += held
    assert sorted(seen) == sorted(every)


def test_a_lone_short_video_serves_both_splits_with_a_warning(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 5)
    for split in ("train", "test"):
        with pytest.warns(UserWarning, match=r"a\.mp4 is the only readable video and holds a single clip"):
            source = VideoClips(tmp_path, frames=8, split=split)
        assert len(source) == 1
        assert frame_numbers(source[0]) == [0, 1, 2, 3, 4, 4, 4, 4]


def test_several_paths_and_a_string_are_accepted(library: Path) -> None:
    whole = VideoClips(str(library), frames=8)
    parts = VideoClips([library / "juggling", str(library / "archery" / "*.mp4")], frames=8, split="train")
    assert parts.label_names == whole.label_names
    assert len(parts) + len(VideoClips([library / "juggling", library / "archery"], frames=8, split="test")) == 22


@pytest.mark.parametrize("megabytes", [0, 0.02, 256])
def test_the_cache_changes_no_pixel_and_stays_within_bounds(library: Path, megabytes: float) -> None:
    source = VideoClips(library, frames=8, size=16, cache_megabytes=megabytes)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(1)).tolist()
    for index in order + order[::-1]:
        path, first_frame = source.source_of(index)
        assert torch.equal(source[index], read_clips(path, open_video(path, 8), [first_frame], 8, 16)[0])
        assert len(source._cache) * source[0].nbytes <= megabytes * 2**20
        assert source._cache._block.untyped_storage().nbytes() <= megabytes * 2**20


def test_a_file_is_decoded_once_while_the_cache_holds(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(path: Path, *arguments: object) -> object:
        opened.append(path)
        return read_clips(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(footage_module, "read_clips", counting)
    source = VideoClips(library, frames=4, size=8)
    for index in reversed(range(len(source))):
        source[index]
    assert len(opened) == len(set(opened))


def test_delivered_clips_are_the_callers_own(library: Path) -> None:
    source = VideoClips(library, frames=4, size=8)
    before = source[0].clone()
    source[0].zero_()
    source.batch([0]).clips.zero_()
    assert torch.equal(source[0], before)


def test_long_files_are_read_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage_module, "_STRETCH_FRAMES", 16)
    write_video(tmp_path / "a.mp4", 100)
    source = VideoClips(tmp_path, frames=8, size=8, split="train")
    for index in (9, 0, 4, 9, 5):
        assert frame_numbers(source[index]) == [frame % 40 for frame in range(8 * index, 8 * index + 8)]
    assert len(source) == 10
    assert set(source._cache._places) == {8, 9, 0, 1, 4, 5}  # pairs of neighbours, nothing beyond


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = ClipCache(capacity_bytes=25)
    for index in (0, 1):
        cache.put(index, torch.full((10,), index, dtype=torch.uint8))
    assert cache.get(0) is not None
    cache.put(2, torch.zeros(10, dtype=torch.uint8))
    assert cache.get(1) is None
    held = cache.get(0)
    assert held is not None
    assert held.tolist() == [0] * 10
    cache.put(0, torch.full((10,), 7, dtype=torch.uint8))
    assert held.tolist() == [0] * 10  # a copy
    assert [None if (one := cache.get(index)) is None else one[0].item() for index in range(3)] == [7, None, 0]
    assert len(cache) == 2
    nothing = ClipCache(capacity_bytes=9)
    nothing.put(0, torch.zeros(10, dtype=torch.uint8))
    assert (len(nothing), nothing.get(0)) == (0, None)


def test_it_pickles_without_its_cache(library: Path) -> None:
    source = VideoClips(library, frames=4, size=8)
    expected = source.batch(range(len(source)))
    again = pickle.loads(pickle.dumps(source))
    assert len(again._cache) == 0
    received = again.batch(range(len(again)))
    assert torch.equal(received.clips, expected.clips)
    assert torch.equal(received.labels, expected.labels)
    assert again.describe() == source.describe()


def test_broken_files_are_skipped_with_one_warning_each(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(library, folder)
    (folder / "archery" / "text.mp4").write_text("not a video")
    (folder / "empty.avi").touch()
    with pytest.warns(UserWarning, match="Skipped the unreadable video") as caught:
        source = VideoClips(folder, frames=8)
    texts = sorted(str(warning.message) for warning in caught)
    assert len(texts) == 2
    assert "text.mp4: no video that ffmpeg can read" in texts[0]
    assert "empty.avi: the file is empty (0 bytes)" in texts[1]
    assert {warning.filename for warning in caught} == {__file__}
    assert {path.name for path in source.skipped} == {"text.mp4", "empty.avi"}
    # Broken files change nothing for the others: same clips in the same split.
    whole = VideoClips(library, frames=8)
    assert [source.source_of(index)[0].name for index in range(len(source))] == [
        whole.source_of(index)[0].name for index in range(len(whole))
    ]
    with pytest.raises(UnreadableVideoError, match=r"text\.mp4"):
        VideoClips(folder, frames=8, on_error="raise")


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no")
    (tmp_path / "b.mp4").touch()
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(UnreadableVideoError, match=r"expected at least one readable video, got none among 2 \(a\.mp4: "),
    ):
        VideoClips(tmp_path)


def test_damage_inside_a_file_is_replaced_and_reported_once(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(library, folder)
    damaged = write_damaged_video(folder / "juggling" / "w.mp4").resolve()
    source = VideoClips(folder, frames=8, test_fraction=0.01)  # practically all is trained on
    assert not source.skipped
    wounded = [index for index in range(len(source)) if source.source_of(index)[0] == damaged]
    assert len(wounded) == 12
    with pytest.warns(UserWarning, match=r"w\.mp4: damaged stream") as caught:
        batch = source.batch([wounded[5], 0, wounded[0]])
    assert len(caught) == 1
    assert source.skipped.keys() == {damaged}
    stand_in = (wounded[-1] + 1) % len(source)
    assert batch.ids.tolist() == [stand_in, 0, stand_in]
    assert torch.equal(batch.clips[0], source[stand_in])
    assert batch.labels[0] == source.batch([stand_in]).labels[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = source.batch([wounded[5], wounded[11]])
    assert again.ids.tolist() == [stand_in, stand_in]

    strict = VideoClips(folder, frames=8, test_fraction=0.01, on_error="raise")
    for _ in range(2):  # an error persists
        with pytest.raises(UnreadableVideoError, match=r"w\.mp4"):
            strict.batch([wounded[5]])


def test_files_that_vanish_are_replaced_and_all_gone_is_an_error(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(library, folder)
    source = VideoClips(folder, frames=8)
    lost = source.source_of(0)[0]
    lost.unlink()
    with pytest.warns(UserWarning, match="No such file") as caught:
        batch = source.batch([0, 1])
    assert len(caught) == 1
    assert all(source.source_of(index)[0] != lost for index in batch.ids.tolist())
    shutil.rmtree(folder)
    with (
        pytest.warns(UserWarning, match="No such file"),
        pytest.raises(UnreadableVideoError, match="got none among"),
    ):
        pickle.loads(pickle.dumps(source)).batch([0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "Expected frames ≥ 1, got 0; "),
        ({"size": -3}, "Expected size ≥ 1, got -3; "),
        ({"split": "val"}, "Expected split 'train' or 'test', got 'val'; "),
        ({"starts": "middle"}, "Expected starts 'grid' or 'random', got 'middle'; "),
        ({"test_fraction": 1.0}, r"Expected test_fraction strictly between 0 and 1, got 1\.0; pass"),
        ({"on_error": "ignore"}, "Expected on_error 'skip' or 'raise', got 'ignore'; "),
        ({"cache_megabytes": -1}, "Expected cache_megabytes ≥ 0, got -1; "),
    ],
)
def test_bad_arguments_say_what_to_do(library: Path, change: dict[str, object], message: str) -> None:
    make: Callable[..., VideoClips] = VideoClips
    with pytest.raises(ValueError, match=message):
        make(library, **change)


@needs_real_clips
def test_real_folder_skips_the_broken_and_uses_the_rest() -> None:
    sources = {}
    for split in ("train", "test"):
        with pytest.warns(UserWarning, match="Skipped") as caught:
            sources[split] = VideoClips(REAL_CLIPS, split=split)
        named = sorted(str(warning.message).split(": ")[0].rsplit("/", 1)[-1] for warning in caught)
        assert named == ["corrupted.mp4", "empty.avi", "not_a_video.mp4", "truncated.mp4"]
        assert sorted(path.name for path in sources[split].skipped) == named
    assert sources["train"].label_names == ("broken", "clips")
    frame_counts = (310, 280, 300, 250, 132, 68, 4, 3, 125)  # the last in AV1
    assert sum(map(len, sources.values())) == sum(max(1, count // 16) for count in frame_counts)
    for source in sources.values():
        batch = source.batch(range(len(source)))  # would warn, and so fail, if any of it were unreadable
        assert batch.ids.tolist() == list(range(len(source)))
        for clip, index in zip(batch.clips, batch.ids.tolist(), strict=True):
            # One of the files is plain black; of the others no clip is blank.
            assert clip.float().std() > 5 or source.source_of(index)[0].name == "four_frames.mov"
