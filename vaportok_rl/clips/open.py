"""Opens a source of clips by name, as it is written on a command line or in an environment's arguments."""

from __future__ import annotations

from vaportok_rl.clips.procedural import ProceduralClips
from vaportok_rl.clips.source import ClipSource, check_split
from vaportok_rl.clips.video import VideoClips

PROCEDURAL = "procedural"


def open_clips(clips: str, *, split: str = "train", frames: int = 16, size: int = 32, seed: int = 0) -> ClipSource:
    """Opens clips by name.

    Args:
        clips: ``"procedural"``, or a video file, a folder of videos or a glob pattern.
        split: ``"train"`` or ``"test"`` (held out).
        frames: T, frames a clip.
        size: H = W, pixels.
        seed: of the procedural world; footage does not depend on it.

    Raises:
        FileNotFoundError: the path does not exist or holds no video.
        UnreadableVideoError: none of the videos can be read.
        ValueError: the split is unknown.
    """
    if clips == PROCEDURAL:
        return ProceduralClips(seed, split, frames=frames, size=size)
    return VideoClips(clips, frames=frames, size=size, split=check_split(split))
