"""A video file as a data set lists it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vaportok_rl.clips.source import Split


@dataclass(frozen=True)
class ListedVideo:
    """A video file as a data set lists it.

    Attributes:
        path: the file; it need not exist.
        key: its name within the data set, which moving the data set does not change.
        label: its class.
        split: the split it belongs to, or None to decide by a hash of the key.
    """

    path: Path
    key: str
    label: str
    split: Split | None = None
