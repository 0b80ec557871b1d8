"""An imperceptible watermark for generated clips, and a test with an exact bound on false positives (supplement H).

The watermark is a seeded pattern of signs on low frequencies of the clip's grey levels, in time and space, so it
survives compression and resizing. A payload selects the pattern.

The test correlates the clip with each pattern. To an unmarked clip the signs are independent coin flips, so Hoeffding's
inequality bounds the probability of a correlation this large for any content.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.tokenizer.complexity import grey_levels

PAYLOADS = 256
"""8 bits."""
THRESHOLD = 1e-5
"""Maximum p-value at which a clip is taken to be marked."""
PSNR_DB = 40.15
"""PSNR of a marked clip against the unmarked one, before rounding."""
# Patterns per payload; a clip gets the one it correlates with most.
_CHOICES = 16
_KEY = 0x5650544B
# Half-waves along each side of a frame, and along time: compression removes higher ones.
_SIDES, _TIMES = 9, 16
# Minimum amplitude of a frequency, in grey levels, in the test and in choosing where to mark.
_QUIET, _ROOM = 0.25, 0.3


@dataclass(frozen=True)
class Detection:
    """Result of `detect`.

    Attributes:
        p_value: upper bound on the probability that an unmarked clip correlates as much with any pattern.
        payload: of the most likely pattern; meaningless unless `marked`.
    """

    p_value: float
    payload: int

    @property
    def marked(self) -> bool:
        """Whether the clip is taken to be marked."""
        return self.p_value <= THRESHOLD


def payload_of(text: str) -> int:
    """The payload of a text, such as a generator's hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "big") % PAYLOADS


def mark_clips(clips: Tensor, payload: int = 0) -> Tensor:
    """Marks clips.

    Args:
        clips: ``uint8 [B, 3, T, H, W]`` with H and W of at least 10.
        payload: in 0 … 255.

    Returns:
        ``uint8`` of the same shape, at least 40 dB from the clips.

    Raises:
        ValueError: the payload is out of range, or the clips are too small.
    """
    if not 0 <= payload < PAYLOADS:
        raise ValueError(f"Expected a payload in 0…{PAYLOADS - 1}, got {payload}; it has 8 bits.")
    _check_size(clips)
    patterns = _patterns()[payload * _CHOICES : (payload + 1) * _CHOICES]
    return torch.stack([_mark(clip, patterns) for clip in clips.cpu()]).to(clips.device)


def _mark(clip: Tensor, patterns: NDArray[np.float32]) -> Tensor:
    """Marks one clip ``uint8 [3, T, H, W]``, most at the frequencies where the picture has least power."""
    waves = _waves(*clip.shape[1:])
    found = _spectrum(clip, waves)
    nearest = torch.from_numpy(patterns[int((patterns @ _heard(found)).argmax())]).double()
    signs = nearest.view(_TIMES, _SIDES, _SIDES)[: len(found)]
    pattern = torch.einsum("kuv,kt,uy,vx->tyx", signs / (_power(found) + _ROOM**2).sqrt(), *waves)
    pattern = pattern * (255 * 10 ** (-PSNR_DB / 20) / pattern.square().mean().sqrt())
    marked: Tensor = (clip + pattern).round().clamp(0, 255).to(torch.uint8)
    return marked


def detect(clip: Tensor) -> Detection:
    """Tests one clip ``uint8 [3, T, H, W]`` of at least 10 × 10 pixels for a watermark.

    Raises:
        ValueError: the clip is too small.
    """
    _check_size(clip[None])
    heard = _heard(_spectrum(clip.cpu(), _waves(*clip.shape[1:])))
    sums = _patterns() @ heard
    best, length = int(sums.argmax()), float(np.linalg.norm(heard))
    score = max(0.0, float(sums[best])) / length if length > 0 else 0.0
    return Detection(min(1.0, len(sums) * math.exp(-0.5 * score * score)), best // _CHOICES)


def _check_size(clips: Tensor) -> None:
    if clips.dtype != torch.uint8 or clips.dim() != 5 or clips.shape[1] != 3 or min(clips.shape[3:]) <= _SIDES:
        raise ValueError(
            f"Expected clips uint8 [B, 3, T, H, W] of more than {_SIDES} pixels per side, got {clips.dtype} of shape "
            f"{tuple(clips.shape)}; a smaller one cannot carry the mark."
        )


def _waves(frames: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines along time and both sides, each ``[frequencies, samples]``: the same waves at every size."""

    def cosines(count: int, samples: int) -> Tensor:
        # In float64, where no pixel is so near to a half that the order of additions decides how it is rounded.
        place = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
        return torch.cos(torch.pi * torch.arange(count)[:, None] * place)

    return cosines(min(frames, _TIMES), frames), cosines(_SIDES, height), cosines(_SIDES, width)


def _spectrum(clip: Tensor, waves: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Amplitude of each wave in a clip ``uint8 [3, T, H, W]``, in grey levels: ``[times, sides, sides]``."""
    return torch.einsum("tyx,kt,uy,vx->kuv", grey_levels(clip[None])[0].double(), *waves) * (8 / clip[0].numel())


def _power(found: Tensor) -> Tensor:
    """Mean square over each frequency and its neighbours."""
    return F.avg_pool3d(F.pad(found.square()[None, None], (1,) * 6, mode="replicate"), 3, 1)[0, 0]


def _heard(found: Tensor) -> NDArray[np.float32]:
    """Amplitudes weighted by reliability, flattened: frequencies where the picture has much power count less."""
    power = _power(found) + _QUIET**2
    limit = 2 * power.sqrt()
    heard = torch.minimum(torch.maximum(found, -limit), limit) / power
    heard[0, 0, 0] = 0  # brightness
    return F.pad(heard, (0, 0, 0, 0, 0, _TIMES - len(heard))).flatten().float().numpy()


@lru_cache(maxsize=1)
def _patterns() -> NDArray[np.float32]:
    """Signs for each payload and choice: ±1 ``[256 · 16, times · sides · sides]``."""
    shape = (PAYLOADS * _CHOICES, _TIMES * _SIDES * _SIDES)
    drawn = np.random.Generator(np.random.Philox(_KEY)).integers(0, 2, shape, np.int8)
    return 2 * drawn.astype(np.float32) - 1
