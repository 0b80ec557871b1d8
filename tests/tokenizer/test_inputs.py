"""Accepted video, and messages about the rest."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from vaportok_rl.tokenizer.inputs import clips_to_float

SHAPE = (3, 2, 4, 4)


def test_bytes_become_fractions() -> None:
    clips = torch.arange(96, dtype=torch.uint8).reshape(1, *SHAPE)
    video = clips_to_float(clips, SHAPE)
    assert video.dtype == torch.float32
    assert video.flatten().tolist() == pytest.approx([level / 255 for level in range(96)])
    assert clips_to_float(torch.full((1, *SHAPE), 255, dtype=torch.uint8), SHAPE).eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_pass_as_they_are(dtype: torch.dtype) -> None:
    clips = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=dtype).repeat(2, 3, 2, 4, 1)
    video = clips_to_float(clips, SHAPE)
    assert video.dtype == torch.float32
    assert torch.equal(video, clips.float())


@pytest.mark.parametrize("shape", [SHAPE, (1, 2, 3, 4, 4), (1, 3, 2, 4, 5), (1, 1, 3, 2, 4, 4), (1, 4, 2, 4, 4), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    expected = f"[B, 3, 2, 4, 4] (batch, channels, frames, height, width), got {shape}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        clips_to_float(torch.zeros(shape), SHAPE)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("shape", "channels", "advice"),
    [
        ((2, 1, 4, 8, 8), 3, "repeat the grey channel with clips.expand(-1, 3, -1, -1, -1)"),
        ((2, 4, 4, 8, 8), 3, "drop the alpha channel with clips[:, :3]"),
        ((2, 3, 4, 8, 8), 1, "grey channel with clips[:, :3].float().mean(1, keepdim=True).to(clips.dtype)"),
        ((2, 4, 4, 8, 8), 1, "grey channel with clips[:, :3].float().mean(1, keepdim=True).to(clips.dtype)"),
        ((2, 4, 8, 8, 3), 3, "move the channels from last to second with clips.permute(0, 4, 1, 2, 3)"),
        ((2, 4, 3, 8, 8), 3, "swap channels and frames with clips.transpose(1, 2)"),
        ((3, 4, 8, 8), 3, "add the batch axis with clips[None]"),
    ],
)
def test_advice_on_shapes_works(shape: tuple[int, ...], channels: int, advice: str, dtype: torch.dtype) -> None:
    clips = torch.full(shape, 0.5).to(dtype)
    with pytest.raises(ValueError, match=re.escape(f"got {shape}; ") + ".*" + re.escape(f"{advice}.")):
        clips_to_float(clips, (channels, 4, 8, 8))
    advised = eval(advice[advice.index("clips") :], {"clips": clips})
    assert clips_to_float(advised, (channels, 4, 8, 8)).shape[1:] == (channels, 4, 8, 8)


def test_channels_that_make_no_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="convert the video to RGB"):
        clips_to_float(torch.zeros(1, 2, 4, 8, 8), (3, 4, 8, 8))


@pytest.mark.parametrize("clips", [np.zeros((1, *SHAPE), np.uint8), np.zeros((1, *SHAPE)).tolist()])
def test_other_containers_are_refused(clips: Any) -> None:
    with pytest.raises(ValueError, match=r"torch.Tensor, got (ndarray|list); convert with torch.as_tensor"):
        clips_to_float(clips, SHAPE)
    assert clips_to_float(torch.as_tensor(clips), SHAPE).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {dtype}; convert")):
        clips_to_float(torch.zeros(1, *SHAPE, dtype=dtype), SHAPE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "from 0 to 1.5; divide 0-255 video by 255"),
        (-0.25, "from -0.25 to 0;"),
        (255.0, "from 0 to 255;"),
        (float("nan"), "without NaN, got values from nan to nan"),
        (float("inf"), "from 0 to inf"),
        (float("-inf"), "from -inf to 0"),
    ],
)
def test_values_outside_the_range_are_refused(value: float, message: str) -> None:
    clips = torch.zeros(2, *SHAPE)
    clips[1, 2, 1, 3, 3] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        clips_to_float(clips, SHAPE)
