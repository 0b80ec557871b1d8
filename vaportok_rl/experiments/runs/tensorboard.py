"""Animated clips in TensorBoard."""

from __future__ import annotations

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.experiments.reports.pictures import Frames, gif_bytes


def add_clip(writer: SummaryWriter, tag: str, frames: Frames, step: int) -> None:
    """Logs ``uint8 [T, H, W, 3]`` frames as an animation, without the video package that ``add_video`` needs."""
    image = Summary.Image(
        height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=gif_bytes(frames)
    )
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
