"""Greyscale, transparent, deep and odd-sized videos all become RGB clips of the size asked for."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
import torch

from vaportok_rl.clips import VideoClips

GREY = np.full((6, 48, 64, 1), 100, dtype=np.uint8)
COLOUR = np.array([200, 50, 20], dtype=np.uint8)
RGB = np.broadcast_to(COLOUR, (6, 48, 64, 3))
ALPHA = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], (6, 48, 64, 1))
RGBA = np.concatenate([RGB, ALPHA], axis=-1)
ODD = np.broadcast_to(COLOUR, (6, 37, 51, 3))


def write(path: Path, video: npt.NDArray[np.uint8], *codec: str) -> None:
    frames, height, width, channels = video.shape
    given = {1: "gray", 3: "rgb24", 4: "rgba"}[channels]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", given]
    command += ["-s", f"{width}x{height}", "-r", "25", "-i", "-", "-frames:v", str(frames), *codec, str(path)]
    subprocess.run(command, input=np.ascontiguousarray(video).tobytes(), check=True)


@pytest.mark.parametrize(
    ("name", "video", "codec"),
    [
        ("grey_h264.mp4", GREY, ("-c:v", "libx264", "-pix_fmt", "gray")),
        ("grey.mkv", GREY, ("-c:v", "ffv1", "-pix_fmt", "gray")),
        ("grey_deep.mkv", GREY, ("-c:v", "ffv1", "-pix_fmt", "gray16le")),
        ("grey_png.mov", GREY, ("-c:v", "png")),
        ("alpha_png.mov", RGBA, ("-c:v", "png")),
        ("alpha_animation.mov", RGBA, ("-c:v", "qtrle")),
        ("alpha.mkv", RGBA, ("-c:v", "ffv1", "-pix_fmt", "bgra")),
        ("alpha.webm", RGBA, ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")),
        ("odd.mkv", ODD, ("-c:v", "ffv1")),
        ("odd_h264.mp4", ODD, ("-c:v", "libx264", "-pix_fmt", "yuv444p")),
        ("odd.avi", ODD, ("-c:v", "mjpeg")),
        ("deep.mkv", ODD, ("-c:v", "ffv1", "-pix_fmt", "yuv422p10le")),
        ("tiny.mkv", ODD[:, :3, :5], ("-c:v", "ffv1")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is the only readable video")
def test_any_pixel_format_becomes_rgb(
    tmp_path: Path, name: str, video: npt.NDArray[np.uint8], codec: tuple[str, ...]
) -> None:
    write(tmp_path / name, video, *codec)
    clip = VideoClips(tmp_path, frames=4, size=24)[0]
    assert clip.shape == (3, 4, 24, 24)
    assert clip.dtype == torch.uint8
    # Transparency is dropped, not blended with anything.
    expected = torch.tensor([100] * 3 if video.shape[-1] == 1 else COLOUR.tolist()).reshape(3, 1, 1, 1)
    assert (clip.int() - expected).abs().max() <= 4  # codecs round
