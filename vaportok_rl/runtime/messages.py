"""Error and warning messages: "did you mean", missing paths, packages, and warnings that point at the user's line."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])


def closest_name(given: str, known: Iterable[str]) -> str | None:
    """The known name most similar to the given one, or None if none is similar."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1)), None)


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """The advice at the end of an error message about an unknown name.

    Args:
        given: the unknown name.
        known: the known names.
        otherwise: the advice if no known name is similar.

    Returns:
        ``did you mean 'name'?``, or ``otherwise``.
    """
    close = closest_name(given, known)
    return otherwise if close is None else f"did you mean {close!r}?"


def no_such_path(expected: str, given: str, lack: str) -> FileNotFoundError:
    """The error about a missing path.

    Args:
        expected: what should be there, such as ``"a video file"``.
        given: the path as the user wrote it.
        lack: what is wrong with it, such as ``"does not exist"``.
    """
    return FileNotFoundError(
        f"Expected {expected}, got {given!r}, which {lack} (working directory {Path.cwd()}); check the spelling or "
        "pass an absolute path."
    )


def install_extra(extra: str) -> str:
    """The advice at the end of an error message about a missing package of one of this package's extras."""
    return f"run `pip install '.[{extra}]'` in the repository"


def warn_user(message: str) -> None:
    """Emits a `UserWarning` at the innermost caller outside this package."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
