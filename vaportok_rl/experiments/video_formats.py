"""Writes docs/video-formats.md: encodes small videos of many formats, reads all clips and reports wrong ones."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import tyro
from torch import Tensor

from vaportok_rl.clips import VideoClips
from vaportok_rl.clips.footage.decoding import open_video
from vaportok_rl.runtime.markdown import markdown_table, write_page

COMMAND = "python -m vaportok_rl.experiments.video_formats docs"
_FRAMES, _SIZE, _BITS = 8, 32, 8


@dataclass(frozen=True)
class Format:
    """A codec in a container.

    Attributes:
        file: name of a file.
        codec: ffmpeg's encoder.
        what: particulars.
        options: of the encoder.
        pixels: pixel format.
        size: width and height.
    """

    file: str
    codec: str
    what: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str = "yuv420p"
    size: tuple[int, int] = (64, 64)


_X264 = {"preset": "veryfast", "crf": "10", "g": "20", "bf": "3"}
_OPEN = {**_X264, "x264-params": "open-gop=1:keyint=20:scenecut=0"}
_B_FRAMES = {"bf": "2", "g": "12", "qmin": "2", "qmax": "3"}
_P_FRAMES = {"g": "12", "qmin": "2", "qmax": "3"}
_VP = {"g": "20", "b": "2M", "deadline": "realtime", "cpu-used": "8"}
FORMATS = (
    Format("h264.mp4", "libx264", "closed groups, B-frames", _X264),
    Format("h264-one-group.mov", "libx264", "one group of pictures", _X264 | {"g": "500"}),
    Format("h264-open.mp4", "libx264", "open groups, B-frames", _OPEN),
    Format("h264-open.mkv", "libx264", "open groups, B-frames", _OPEN),
    Format("h264-open.flv", "libx264", "open groups, B-frames", _OPEN),
    Format("h264.avi", "libx264", "B-frames, whose order AVI does not store", _X264),
    Format("h264.ts", "libx264", "transport stream", _X264),
    Format(
        "hevc-open.mkv",
        "libx265",
        "open groups, B-frames",
        {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=20:bframes=4:pools=none"},
    ),
    Format("av1.mp4", "libsvtav1", "", {"preset": "8", "g": "20", "crf": "5"}),
    Format("vp9.webm", "libvpx-vp9", "", _VP),
    Format("vp8.webm", "libvpx", "hidden reference frames", _VP | {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    Format("mpeg4.mp4", "mpeg4", "B-frames", _B_FRAMES),
    Format("mpeg4.avi", "mpeg4", "B-frames, as DivX and UCF101", _B_FRAMES),
    Format("mpeg2.mkv", "mpeg2video", "B-frames", _B_FRAMES),
    Format("mpeg2.mpg", "mpeg2video", "B-frames, program stream", _B_FRAMES),
    Format("mpeg1.mpg", "mpeg1video", "B-frames, program stream", _B_FRAMES),
    Format("flv1.flv", "flv", "", _P_FRAMES),
    Format("wmv2.wmv", "wmv2", "", _P_FRAMES),
    Format("h263.3gp", "h263", "", _P_FRAMES, size=(128, 96)),
    Format("mjpeg.avi", "mjpeg", "key frames only", {"qmin": "2", "qmax": "3"}, "yuvj420p"),
    Format("prores.mov", "prores_ks", "key frames only", {}, "yuv422p10le"),
)
"""Formats of phones, editors, cameras and data sets."""


def write_numbered(path: Path, kind: Format, count: int = 96) -> Path:
    """Writes a video in which each frame shows its number as 2 × 4 dark and bright fields."""
    width, height = kind.size
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(kind.codec, rate=25, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = width, height, kind.pixels
        stream.time_base = Fraction(1, 25)
        for number in range(count):
            bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8).reshape(2, 4)
            square = np.kron(20 + 215 * bits, np.ones((height // 2, height // 4), np.uint8))
            pixels = np.zeros((height, width, 3), np.uint8)
            left = (width - height) // 2
            pixels[:, left : left + square.shape[1]] = square[..., None]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if kind.codec == "libsvtav1" and sys.platform == "linux":
        # As root this encoder gives its thread real-time priority, which starves everything else on the machine.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def read_numbers(clip: Tensor) -> list[int]:
    """The numbers shown in the frames of a clip ``[3, T, H, W]`` of such a video."""
    fields = clip.float().mean(0).unflatten(-2, (2, -1)).unflatten(-1, (4, -1)) > 127
    bits = fields.float().mean((2, 4)).round().int().flatten(1)
    return [sum(int(bit) << place for place, bit in enumerate(row)) for row in bits.tolist()]


def wrong_clips(path: Path, visits: int = 12) -> Iterator[str]:
    """Descriptions of the clips that show wrong frames, in either split and at random starts in training.

    Args:
        path: from `write_numbered`; the only file of its folder.
        visits: number of random starts.
    """
    options = {"frames": _FRAMES, "size": _SIZE}
    seen: dict[str, set[int]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in ("train", "test"):
            source = VideoClips(path, split=split, **options)  # type: ignore[arg-type]
            shown = [read_numbers(clip) for clip in source.batch(range(len(source))).clips]
            seen[split] = {number for numbers in shown for number in numbers}
            for index, numbers in enumerate(shown):
                first = source.source_of(index)[1]
                if numbers != [*range(first, first + _FRAMES)]:
                    yield f"{split} clip {index}, from frame {first}: {numbers}"
        both = sorted(seen["train"] & seen["test"])
        if both:
            yield f"in both splits: {both}"
        source = VideoClips(path, starts="random", **options)  # type: ignore[arg-type]
        for visit in range(visits):
            clip = source.training_batch([0], [visit], 0).clips[0]
            either = [read_numbers(one) for one in (clip, clip.flip(-1))]
            if not any(one == [*range(one[0], one[0] + _FRAMES)] for one in either):
                yield f"random start at visit {visit}: {either[0]}"


def format_rows() -> list[list[str]]:
    """A row per format: file, codec, particulars, decoder, access, faults."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in FORMATS:
            path = write_numbered(Path(scratch) / kind.file, kind)
            with av.open(str(path)) as container:
                decoder = container.streams.video[0].codec_context.codec.name
            wrong = "; ".join(wrong_clips(path)) or "none"
            index = open_video(path, _FRAMES)
            rows.append([kind.file, kind.codec, kind.what, f"{decoder} ({index.decoder})", index.access, wrong])
    return rows


def main(folder: Path, /) -> None:
    """Makes a video of each format, reads all its clips, and writes the results.

    Args:
        folder: where to write video-formats.md.
    """
    text = f"""\
Made by `{COMMAND}`, which encodes a video of 96 numbered frames for each line and compares every
clip of both splits, and random starts, with the numbers it should show.

How a file is read is measured when it is first opened, and remembered with the split. decord, which is faster on small
pictures, reads a file whose frames need no more than their place and whose probed clips are the same to the bit in both
libraries; PyAV reads everything else. A frame is reached in two ways: *seeks* goes to the key frame before and decodes
by presentation time; *counts* decodes from the beginning, where the container's times do not hold, and is slower the
later a clip begins. Edit lists, rotation and mirroring are obeyed in every container. What a decoder cannot read is
skipped and named, as are clips that may refer to frames which a damaged container lost, if its reader says that it is
damaged. A loss that the reader passes over in silence, as in AVI and in transport streams, is not noticed."""
    headings = ("file", "encoder", "particulars", "decoder", "access", "wrong clips")
    table = markdown_table(headings, format_rows(), names=len(headings))
    print(write_page(folder / "video-formats.md", "Video formats", text, table))


if __name__ == "__main__":
    tyro.cli(main)
