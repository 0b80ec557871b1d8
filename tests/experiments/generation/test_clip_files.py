"""Files of generated clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.experiments.generation.clip_files import write_clip


def test_a_small_clip_makes_the_same_file_each_time(tmp_path: Path) -> None:
    clip = ProceduralClips(split="test", frames=4, size=32).batch([0]).clips[0]
    files, sizes = set(), np.random.default_rng(0).integers(1_000, 200_000, 60)
    for size in sizes:
        used = np.full(size, 255, np.uint8)  # memory that the encoder may find afterwards is different each time
        files.add(write_clip(tmp_path / "clip.mp4", clip).read_bytes())
        del used
    assert len(files) == 1
