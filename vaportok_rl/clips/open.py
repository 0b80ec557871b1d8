"""Opens a source of clips by name, as it is written on a command line or in an environment's arguments."""

from __future__ import annotations

from collections.abc import Sequence

from vaportok_rl.clips.gameplay import GameplayClips
from vaportok_rl.clips.mixed import MixedClips
from vaportok_rl.clips.procedural import ProceduralClips
from vaportok_rl.clips.source import ClipSource, check_split
from vaportok_rl.clips.video import VideoClips

PROCEDURAL = "procedural"
GAMEPLAY_PREFIX = "gym:"


def open_clips(
    clips: str | Sequence[str], *, split: str = "train", frames: int = 16, size: int = 32, seed: int = 0
) -> ClipSource:
    """Opens clips by name.

    Args:
        clips: one of

            - ``"procedural"``;
            - ``"gym:ID"`` or ``"gym:ID,ID,…"``, gameplay of Gymnasium environments;
            - a video file, a folder of videos or a glob pattern;
            - several of these, taken in turn; one named twice gets two turns.
        split: ``"train"`` or ``"test"`` (held out).
        frames: T, frames a clip.
        size: H = W, pixels.
        seed: of the procedural world and of games; footage does not depend on it.

    Raises:
        FileNotFoundError: the path does not exist or holds no video.
        UnreadableVideoError: none of the videos can be read.
        ValueError: the split or an environment is unknown, or no name is given.
    """
    names = [clips] if isinstance(clips, str) else list(clips)
    distinct = list(dict.fromkeys(names))
    if not distinct:
        raise ValueError("Expected at least one source of clips, got none; pass for instance 'procedural'.")
    sources = [_open_one(name, split, frames, size, seed) for name in distinct]
    return sources[0] if len(sources) == 1 else MixedClips(sources, [distinct.index(name) for name in names])


def _open_one(name: str, split: str, frames: int, size: int, seed: int) -> ClipSource:
    if name == PROCEDURAL:
        return ProceduralClips(seed, split, frames=frames, size=size)
    if name.startswith(GAMEPLAY_PREFIX):
        environments = name.removeprefix(GAMEPLAY_PREFIX).split(",")
        return GameplayClips(environments, frames=frames, size=size, split=split, seed=seed)
    return VideoClips(name, frames=frames, size=size, split=check_split(split))
