"""Reading frames: order, clip size, repetition of the last frame, and readable reasons for failure."""

import pickle
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from vaportok_rl.clips.footage.decoding import UnreadableVideoError, open_video, read_clips, resize_and_crop

REAL_CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
needs_real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips (../shared/clips) are missing")

BROKEN = ["corrupted.mp4", "empty.avi", "not_a_video.mp4", "truncated.mp4"]


def grey_level(frame: int) -> int:
    return 20 + 5 * (frame % 40)


def write_grey_video(path: Path, n_frames: int, codec: str = "libx264", options: tuple[str, ...] = ()) -> None:
    """Every frame one flat grey, 5 levels apart, so that a frame's number can be read off its brightness."""
    writer: Any = imageio.get_writer(
        path, format="FFMPEG", fps=25, codec=codec, quality=9, macro_block_size=16, output_params=list(options)
    )
    with writer:
        for frame in range(n_frames):
            writer.append_data(np.full((48, 64, 3), grey_level(frame), dtype=np.uint8))


def frame_numbers(clip: Tensor, modulo: int = 40) -> list[int]:
    """Inverse of `grey_level` for a clip ``[3, T, H, W]``."""
    means = clip.float().mean(dim=(0, 2, 3))
    return [round((mean - 20) / 5) % modulo for mean in means.tolist()]


def test_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_grey_video(path, 5)
    (clip,) = read_clips(path, open_video(path, 16), [0], frames=9, size=16)
    assert clip.shape == (3, 9, 16, 16)
    assert clip.dtype == torch.uint8
    assert frame_numbers(clip) == [0, 1, 2, 3, 4, 4, 4, 4, 4]
    assert torch.equal(clip[:, 5:], clip[:, 4:5].expand(3, 4, 16, 16))


def test_clips_of_one_reading_do_not_share_memory(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    write_grey_video(path, 8)
    first, second = read_clips(path, open_video(path, 4), [0, 4], frames=4, size=8)
    assert first.untyped_storage().nbytes() == first.nbytes
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 48), (48, 48)])
def test_the_central_square_is_kept(height: int, width: int) -> None:
    frames = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames[:, top : top + side, left : left + side] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    square = resize_and_crop(frames, 48)
    assert square.shape == (2, 3, 48, 48)
    assert square.dtype == torch.uint8
    expected = torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 48, 48)
    assert torch.equal(square, expected)


def test_exact_halving_averages_without_ringing() -> None:
    # Columns alternate 0, 255. Antialiasing gives grey; plain bilinear sampling or nearest could give stripes.
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).reshape(1, 1, 64, 1).expand(1, 64, 64, 3)
    small = resize_and_crop(stripes, 16)
    assert (small[..., 1:-1].float() - 127.5).abs().max() <= 1


@pytest.mark.parametrize("shape", [(37, 91), (240, 427), (9, 8), (11, 8), (8, 11)])
def test_resizing_agrees_with_the_torchvision_transforms(shape: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    frames = torch.randint(0, 256, (3, *shape, 3), generator=torch.Generator().manual_seed(7)).to(torch.uint8)
    resized = transforms.resize(frames.permute(0, 3, 1, 2).float(), [8], antialias=True)
    expected = transforms.center_crop(resized, [8, 8]).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(resize_and_crop(frames, 8), expected)


def test_missing_and_empty_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideoError, match="No such file"):
        open_video(tmp_path / "nowhere.mp4", 16)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(UnreadableVideoError, match=r"empty\.mp4: the file is empty \(0 bytes\)"):
        open_video(empty, 16)


def test_an_unknown_codec_says_so(tmp_path: Path) -> None:
    path = tmp_path / "unknown.mp4"
    write_grey_video(path, 4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UnreadableVideoError, match="no codec"):
        open_video(path, 4)


def test_a_file_that_was_replaced_is_an_error_and_not_other_frames(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_grey_video(path, 40)
    index = open_video(path, 16)
    write_grey_video(path, 20)
    with pytest.raises(UnreadableVideoError, match="of frames 16 to 31 some are damaged or missing"):
        read_clips(path, index, [16], frames=16, size=8)


def test_a_file_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_grey_video(tmp_path / "plain.mp4", 4)
    (tmp_path / "plain.mp4").rename(tmp_path / "http:ä b.mp4")
    monkeypatch.chdir(tmp_path)
    assert open_video(Path("http:ä b.mp4"), 4).count == 4


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableVideoError(Path("a.mp4"), "because")))
    assert isinstance(error, UnreadableVideoError)
    assert (error.path, error.reason, str(error)) == (
        Path("a.mp4"),
        "because",
        "Cannot read video from a.mp4: because.",
    )


@needs_real_clips
@pytest.mark.parametrize("name", BROKEN)
def test_broken_real_files_give_one_readable_line(name: str) -> None:
    path = REAL_CLIPS / "broken" / name
    with pytest.raises(UnreadableVideoError) as caught:
        open_video(path, 16)
    error = caught.value
    assert isinstance(error, UnreadableVideoError)
    assert error.path == path
    message = str(error)
    assert name in message
    assert "\n" not in message
    assert str(path) not in error.reason


@needs_real_clips
@pytest.mark.parametrize(("name", "n_frames"), [("four_frames.mov", 4), ("three_frames_rotated.mov", 3)])
def test_short_real_files_become_one_clip(name: str, n_frames: int) -> None:
    path = REAL_CLIPS / "broken" / name
    assert open_video(path, 16).count == n_frames
    (clip,) = read_clips(path, open_video(path, 16), [0], frames=16, size=32)
    assert torch.equal(clip[:, n_frames:], clip[:, n_frames - 1 : n_frames].expand(3, 16 - n_frames, 32, 32))


@needs_real_clips
@pytest.mark.parametrize(("name", "n_frames"), [("tree.avi", 68), ("bikes.mp4", 250), ("flipping_a_pancake.mkv", 310)])
def test_real_files_read_the_same_forwards_and_by_seeking(name: str, n_frames: int) -> None:
    path = REAL_CLIPS / name
    index = open_video(path, 16)
    assert index.count == n_frames
    firsts = list(range(0, n_frames - 15, 16))
    clips = read_clips(path, index, firsts, frames=16, size=32)
    last = len(firsts) - 1
    assert torch.equal(read_clips(path, index, [firsts[last]], frames=16, size=32)[0], clips[last])
