"""Clips drawn from a seed: families of textures and motions."""

from vaportok_rl.clips.procedural.source import ProceduralClips

__all__ = [
    "ProceduralClips",
]
