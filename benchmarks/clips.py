"""Procedural clips a second: vectorised batches against one clip at a time.

Run: python benchmarks/clips.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from vaportok_rl.clips import ProceduralClips


@dataclass(frozen=True)
class Arguments:
    """How fast procedural clips are made."""

    clips: int = 1024
    """Clips a measurement."""
    batch_size: int = 128
    """Clips a batch."""
    repeats: int = 5
    """Measurements; the median is printed."""


def clips_per_second(make: Callable[[], None], clips: int, repeats: int) -> float:
    """Median rate over the repeats."""
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        make()
        rates.append(clips / (time.perf_counter() - started))
    return sorted(rates)[repeats // 2]


def main(arguments: Arguments) -> None:
    """Measures and prints."""
    source = ProceduralClips()

    def batches() -> None:
        for start in range(0, arguments.clips, arguments.batch_size):
            source.batch(range(start, min(arguments.clips, start + arguments.batch_size)))

    singles = max(1, arguments.clips // 16)

    def one_by_one() -> None:
        for index in range(singles):
            source.batch([index])

    source.batch(range(arguments.batch_size))
    fast = clips_per_second(batches, arguments.clips, arguments.repeats)
    slow = clips_per_second(one_by_one, singles, arguments.repeats)
    print(f"{source.describe()}; {torch.get_num_threads()} threads")
    print(f"batches of {arguments.batch_size}: {fast:.0f} clips/s, {fast / slow:.1f} times one by one ({slow:.0f})")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
