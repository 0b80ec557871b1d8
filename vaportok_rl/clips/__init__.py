"""Sources of video clips. Every source is a `ClipSource`: indexable, labelled, deterministic."""

from vaportok_rl.clips.footage.decoding import UnreadableVideoError
from vaportok_rl.clips.footage.kinetics import KineticsCSV
from vaportok_rl.clips.footage.ucf101 import UCF101
from vaportok_rl.clips.footage.video import VideoClips
from vaportok_rl.clips.gameplay import GameplayClips
from vaportok_rl.clips.loading import ClipLoader
from vaportok_rl.clips.mixed import MixedClips
from vaportok_rl.clips.open import open_clips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.clips.procedural.source import ProceduralClips
from vaportok_rl.clips.source import ClipBatch, ClipOrigin, ClipSource, Split
from vaportok_rl.clips.streams import StreamClips

__all__ = [
    "UCF101",
    "ClipBatch",
    "ClipLoader",
    "ClipOrder",
    "ClipOrigin",
    "ClipSource",
    "GameplayClips",
    "KineticsCSV",
    "MixedClips",
    "ProceduralClips",
    "Split",
    "StreamClips",
    "UnreadableVideoError",
    "VideoClips",
    "open_clips",
]
