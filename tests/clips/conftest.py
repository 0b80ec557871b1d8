"""Videos whose frames show their number, and whether they are mirrored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from torch import Tensor

PERIOD = 40
_RIGHT = 250


@pytest.fixture(scope="session")
def write_numbered() -> Callable[..., Path]:
    """Writes a video: the left half's grey level counts the frames (modulo 40), the right half is bright."""

    def write(path: Path, n_frames: int, codec: str = "libx264", options: tuple[str, ...] = ()) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: Any = imageio.get_writer(
            path, format="FFMPEG", fps=25, codec=codec, quality=9, output_params=list(options)
        )
        with writer:
            for frame in range(n_frames):
                pixels = np.full((48, 64, 3), 20 + 5 * (frame % PERIOD), dtype=np.uint8)
                pixels[:, 32:] = _RIGHT
                writer.append_data(pixels)
        return path

    return write


@pytest.fixture(scope="session")
def read_numbers() -> Callable[[Tensor], tuple[list[int], bool]]:
    """Reads a clip ``[3, T, H, W]`` of such a video: frame numbers modulo 40, and whether it is mirrored."""

    def read(clip: Tensor) -> tuple[list[int], bool]:
        quarter = clip.shape[-1] // 4
        left = clip[..., :quarter].float().mean(dim=(0, 2, 3))
        right = clip[..., -quarter:].float().mean(dim=(0, 2, 3))
        mirrored = bool((left > right).all())
        levels = right if mirrored else left
        return [round((level - 20) / 5) for level in levels.tolist()], mirrored

    return read
