"""Video files: found, split, decoded and skipped when unreadable."""

from vaportok_rl.clips.footage.source import FootageClips

__all__ = [
    "FootageClips",
]
