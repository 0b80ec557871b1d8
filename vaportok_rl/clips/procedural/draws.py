"""Counter-based random numbers: each is a pure function of (seed, split, clip index, name).

A stateful generator would make clip ``i`` depend on the clips drawn before it. Here each clip has a 64-bit key, each
quantity a name, and its number is a hash of the two (SplitMix64: Steele, Lea and Flood, OOPSLA 2014). So batches are
drawn at once, and a clip is the same in any batch.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def _mix(values: Keys) -> Keys:
    """SplitMix64's finaliser, elementwise; a bijection on 64-bit words."""
    values = values ^ (values >> np.uint64(30))
    values *= _MULTIPLIER_1
    values ^= values >> np.uint64(27)
    values *= _MULTIPLIER_2
    values ^= values >> np.uint64(31)
    return values


def _name_word(name: str) -> Keys:
    """A 64-bit word for a name, as an array so that overflow wraps silently."""
    encoded = name.encode()
    return np.array([(zlib.crc32(encoded) << 32) | zlib.crc32(encoded[::-1] + b"#")], dtype=np.uint64)


def clip_keys(seed: int, split: str, indices: npt.NDArray[np.int64]) -> Keys:
    """One key per clip.

    Args:
        seed: of the source; any integer.
        split: name of the split, so that the two splits share no clip.
        indices: ``int64 [B]``.

    Returns:
        ``uint64 [B]``.
    """
    base = _mix(np.array([seed % 2**64], dtype=np.uint64) + _name_word(split))
    return _mix(base + _GOLDEN * (indices.astype(np.uint64) + np.uint64(1)))


class Draws:
    """Named random numbers for a batch of clips.

    Args:
        keys: ``uint64 [B]`` from `clip_keys`.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, chosen: Tensor) -> Draws:
        """The draws of the chosen clips alone: the same numbers as in the whole batch.

        Args:
            chosen: ``int64 [B']`` row numbers.
        """
        return Draws(self.keys[chosen.numpy()])

    def uniform(self, name: str, *shape: int) -> Tensor:
        """``float32 [B, *shape]``, uniform in [0, 1)."""
        count = int(np.prod(shape, dtype=np.int64))
        stream = _mix(self.keys ^ _name_word(name))
        counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        words = _mix(stream[:, None] + counters[None, :])
        # 24 bits fill a float32 mantissa, so the result is exact and never rounds up to 1.
        numbers = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return torch.from_numpy(numbers).reshape(len(self), *shape)

    def between(self, name: str, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        """``float32 [B, *shape]``, uniform in [low, high); tensor bounds broadcast."""
        return low + (high - low) * self.uniform(name, *shape)

    def choice(self, name: str, options: int, *shape: int) -> Tensor:
        """``int64 [B, *shape]``, uniform over ``0 … options - 1``."""
        return (self.uniform(name, *shape) * options).long().clamp_(max=options - 1)

    def normal(self, name: str, *shape: int) -> Tensor:
        """``float32 [B, *shape]``, approximately standard normal, bounded by ±3.46 (sum of four uniforms)."""
        deviates: Tensor = (self.uniform(name, *shape, 4).sum(-1) - 2.0) * 3.0**0.5
        return deviates
