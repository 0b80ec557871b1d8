"""Files of generated clips: MP4 and contact sheets; reads MP4 files back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vaportok_rl.envs.render.drawing import tile_frames, to_frames
from vaportok_rl.runtime.messages import no_such_path
from vaportok_rl.runtime.whole_writes import whole_write

# Frames per clip on a contact sheet, and their enlarged height in pixels.
_SHOWN, _HEIGHT = 4, 96
# Clips per class on the overview.
_OVERVIEW = 8


def write_clip(path: Path, clip: Tensor, fps: int = 8, crf: int = 18) -> Path:
    """Writes ``uint8 [3, T, H, W]`` as an H.264 MP4 atomically; H and W are even."""
    with whole_write(path) as scratch, av.open(str(scratch), "w") as container:
        # x264's macroblock tree gives other bits from run to run for frames as small as 32 × 32.
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "mbtree": "0"})
        stream.height, stream.width = clip.shape[2:]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for frame in to_frames(clip):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def read_clip(path: Path, frames: int = 256) -> Tensor:
    """The first frames of a video file as ``uint8 [3, T, H, W]``.

    Args:
        path: the file.
        frames: maximum number, which bounds memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, or holds no readable video.
    """
    if path.is_dir():
        raise ValueError(f"Expected a video file, got the folder {path}; name its files, such as {path}/*.mp4.")
    if not path.is_file():
        raise no_such_path("a video file", str(path), "is no file")
    shown = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                shown.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                if len(shown) == frames:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"Expected a video at {path}, got a file that cannot be read ({error}); check that it plays."
        ) from error
    if not shown:
        raise ValueError(f"Expected a video at {path}, got a file without frames; check that it plays.")
    return torch.stack(shown).permute(3, 0, 1, 2)


def write_sheet(path: Path, clips: Tensor) -> Path:
    """Writes clips ``uint8 [B, 3, T, H, W]`` as a PNG: one row per clip with four frames from first to last."""
    moments = torch.linspace(0, clips.shape[2] - 1, min(_SHOWN, clips.shape[2])).round().long()
    scale = -(-_HEIGHT // clips.shape[3])
    frames = [frame.repeat(scale, 0).repeat(scale, 1) for clip in clips for frame in to_frames(clip[:, moments])]
    with whole_write(path) as scratch:
        Image.fromarray(tile_frames(frames, len(moments))).save(scratch, format="PNG", optimize=True)
    return path


def overview(clips: Tensor, labels: Tensor, names: Sequence[str]) -> Figure:
    """Middle frames of the first clips of each class, one row per class."""
    present = [label for label in range(len(names)) if bool((labels == label).any())]
    columns = min(_OVERVIEW, max(int((labels == label).sum()) for label in present))
    figure = Figure(figsize=(0.9 * columns + 1.6, 0.9 * len(present)))
    axes = figure.subplots(len(present), columns, squeeze=False)
    for row, label in zip(axes, present, strict=True):
        chosen = clips[labels == label][:columns]
        for axis in row:
            axis.set_axis_off()
        for axis, clip in zip(row, chosen, strict=False):
            axis.imshow(to_frames(clip)[clip.shape[1] // 2], interpolation="nearest")
        row[0].text(-0.1, 0.5, names[label], transform=row[0].transAxes, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(
        left=1.5 / (0.9 * columns + 1.6), right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05
    )
    return figure
