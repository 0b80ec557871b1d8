"""Where video comes from. Every source is a `ClipSource`: indexable, labelled, deterministic."""

from vaportok_rl.clips.decoding import UnreadableVideoError
from vaportok_rl.clips.gameplay import GameplayClips
from vaportok_rl.clips.mixed import MixedClips
from vaportok_rl.clips.open import open_clips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.clips.procedural import ProceduralClips
from vaportok_rl.clips.source import ClipBatch, ClipSource, Split
from vaportok_rl.clips.video import VideoClips

__all__ = [
    "ClipBatch",
    "ClipOrder",
    "ClipSource",
    "GameplayClips",
    "MixedClips",
    "ProceduralClips",
    "Split",
    "UnreadableVideoError",
    "VideoClips",
    "open_clips",
]
