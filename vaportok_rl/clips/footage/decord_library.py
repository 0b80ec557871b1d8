"""Imports decord without letting its libraries replace everyone else's.

Decord loads its library with global symbols, and with it the zlib of 2005 that its wheel carries. Whatever is loaded
afterwards and asks for zlib is then bound to that one: pygame's libpng, for instance, which Gymnasium's environments
draw with, can read no image any more. Decord calls its library by handle only and works as well with local symbols.
"""

from __future__ import annotations

import ctypes

# Decord reads the mode from here when it is imported.
_global_mode = ctypes.RTLD_GLOBAL
ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL  # type: ignore[misc]
try:
    import decord
finally:
    ctypes.RTLD_GLOBAL = _global_mode  # type: ignore[misc]

# ffmpeg's own "[h264 @ 0x…]" lines; every failure reaches the user as an exception or a warning instead.
decord.logging.set_level(decord.logging.QUIET)

__all__ = ["decord"]
