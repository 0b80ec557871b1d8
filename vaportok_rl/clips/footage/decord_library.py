"""Imports decord with local symbols, so that its old zlib does not break other libraries.

Decord loads its library with global symbols, and with it the zlib of 2005 in its wheel. Libraries that are loaded later
would use that zlib; pygame's libpng, for instance, could then read no image. Decord works as well with local symbols.
"""

from __future__ import annotations

import ctypes

# Decord reads the mode from here on import.
_global_mode = ctypes.RTLD_GLOBAL
ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL  # type: ignore[misc]
try:
    import decord
finally:
    ctypes.RTLD_GLOBAL = _global_mode  # type: ignore[misc]

# No "[h264 @ 0x…]" lines of ffmpeg: failures become exceptions or warnings.
decord.logging.set_level(decord.logging.QUIET)

__all__ = ["decord"]
