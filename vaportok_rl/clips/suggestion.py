"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest_name(given: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the given one, or None if none is much like it."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1)), None)


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """The advice at the end of an error message about an unknown name.

    Args:
        given: the name that is not known.
        known: the names that are.
        otherwise: the advice where none of these is much like the given one.

    Returns:
        ``did you mean 'name'?``, or ``otherwise``.
    """
    close = closest_name(given, known)
    return otherwise if close is None else f"did you mean {close!r}?"
