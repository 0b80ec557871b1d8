"""``vaportok-rl detect``: tests videos for the watermark of generated clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


@dataclass(frozen=True)
class Detect:
    """Test video files for the watermark of generated clips; print p-value and payload.

    The p-value is an upper bound on the probability that an unmarked video would look as marked. A file is taken to be
    marked at p ≤ 1e-5.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Video files, each one generated clip, perhaps compressed or resized."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.generation.clip_files import read_clip
        from vaportok_rl.generation.watermark import THRESHOLD, detect

        if not self.files:
            raise ValueError("Expected at least one video file, got none; name one.")
        for file in self.files:
            found = detect(read_clip(file))
            told = f"marked as generated, payload {found.payload}" if found.marked else "no mark found"
            console.print(
                f"{file}: {told} (p ≤ {found.p_value:.1e}, threshold {THRESHOLD:g})", highlight=False, soft_wrap=True
            )
