"""Clips hold the right frames in all formats; each frame shows its number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from vaportok_rl.clips import VideoClips
from vaportok_rl.clips.footage.decoding import UnreadableVideoError, open_video, read_clips
from vaportok_rl.experiments.video_formats import FORMATS, Format, read_numbers, write_numbered, wrong_clips

BY_NAME = {kind.file: kind for kind in FORMATS}
COUNTED = {"h264.avi"}
BY_DECORD = {
    "h264.mp4",
    "h264-one-group.mov",
    "vp9.webm",
    "vp8.webm",
    "flv1.flv",
    "h263.3gp",
    "mjpeg.avi",
    "prores.mov",
}


def ffmpeg(*arguments: object) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.file)
def test_every_clip_holds_its_frames_and_no_frame_is_in_both_splits(kind: Format, tmp_path: Path) -> None:
    path = write_numbered(tmp_path / kind.file, kind)
    if sys.platform == "linux":
        assert os.sched_getscheduler(0) == os.SCHED_OTHER  # an encoder would make it a real-time process
    assert not list(wrong_clips(path))
    index = open_video(path, 8)
    assert (index.count, index.access) == (96, "counts" if kind.file in COUNTED else "seeks")
    assert (index.decoder == "decord") == (kind.file in BY_DECORD)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_trimmed_video_has_the_frames_that_a_player_shows(suffix: str, tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", BY_NAME["h264-one-group.mov"])
    cut = tmp_path / f"cut{suffix}"
    ffmpeg("-ss", 1.2, "-i", whole, "-c", "copy", cut)  # an edit list hides the first 30 frames
    index = open_video(cut, 8)
    assert index.count == 66
    assert read_numbers(read_clips(cut, index, [0], 66, 32)[0]) == [*range(30, 96)]
    shown = {split: VideoClips(cut, frames=8, size=32, split=split) for split in ("train", "test")}  # type: ignore[arg-type]
    numbers = [number for source in shown.values() for clip in source for number in read_numbers(clip)]
    assert numbers == [*range(30, 94)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("turn", [("90",), ("180",), ("-90", "-display_hflip"), ("0", "-display_vflip")], ids=str)
def test_frames_are_turned_and_mirrored_as_a_player_does(turn: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    plain, turned = tmp_path / "plain.mp4", tmp_path / f"turned{suffix}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=8:duration=1", "-pix_fmt", "yuv420p", plain)
    ffmpeg("-display_rotation", *turn, "-i", plain, "-c", "copy", turned)
    # ffmpeg rotates pictures itself.
    ffmpeg("-i", turned, "-vf", "crop=48:48", "-f", "rawvideo", "-pix_fmt", "rgb24", tmp_path / "raw")
    expected = torch.from_numpy(np.fromfile(tmp_path / "raw", np.uint8)).view(8, 48, 48, 3).permute(3, 0, 1, 2)
    clip = read_clips(turned, open_video(turned, 8), [0], 8, 48)[0]
    assert (clip.int() - expected.int()).abs().float().mean() < 2


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        *(
            (name, "a frame")
            for name in ("mpeg2.mkv", "mpeg2.mpg", "h264-open.flv", "mpeg4.avi", "h264.mp4", "flv1.flv")
        ),
        *((name, "the container") for name in ("mpeg2.mkv", "h264-open.flv", "flv1.flv")),
    ],
)
def test_what_is_damaged_is_told_and_the_rest_is_right(name: str, damaged: str, tmp_path: Path) -> None:
    path = write_numbered(tmp_path / name, BY_NAME[name])
    content = bytearray(path.read_bytes())
    if damaged == "a frame":
        middle = len(content) // 2
        content[middle : middle + 60] = np.random.default_rng(0).bytes(60)
    else:  # it loses frames, which those that follow refer to
        with av.open(str(path)) as container:
            middle = [packet.pos for packet in container.demux(video=0) if packet.size][50]
        content[middle : middle + 12] = bytes(12)
    path.write_bytes(content)
    try:
        index = open_video(path, 8)
    except UnreadableVideoError:
        return  # the damage affects the first or last clip: the file is skipped with a warning
    told = 0
    for first in range(0, index.count - 7, 8):
        try:
            numbers = read_numbers(read_clips(path, index, [first], 8, 32)[0])
        except UnreadableVideoError:
            told += 1
        else:
            assert numbers == [*range(numbers[0], numbers[0] + 8)]
    assert 0 < told < index.count // 8


def test_what_is_no_file_is_never_read(tmp_path: Path) -> None:
    write_numbered(tmp_path / "whole.mp4", BY_NAME["h264.mp4"])
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.warns(UserWarning, match="Skipped") as told:
        source = VideoClips(tmp_path, frames=8, size=32)
    assert {path.name for path in source.skipped} == {"pipe.mp4", "loop.mp4"}
    assert any("pipe" in str(one.message) for one in told)
    assert any("loop.mp4" in str(one.message) for one in told)


def test_memory_for_a_clip_does_not_grow_with_the_video(tmp_path: Path) -> None:
    video = tmp_path / "hd.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:size=1920x1080:rate=30:duration=4", "-preset", "ultrafast", video)
    program = """if True:
        import resource, sys
        from vaportok_rl.clips import VideoClips
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        VideoClips(sys.argv[1])[0]
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", program, str(video)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300
