"""Warnings that point at the user's line, however deep in this package they arise."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_OWN_FOLDER = str(Path(__file__).parent)


def warn_user(message: str) -> None:
    """Emits a `UserWarning` at the innermost caller outside this folder."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
