"""Unreadable video files: a warning per file and a count, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vaportok_rl.clips.footage.decoding import UnreadableVideoError
from vaportok_rl.runtime.messages import warn_user

OnError = Literal["skip", "raise"]

# How many names a message lists before it only counts.
_NAMED = 5


class SkippedFiles:
    """The skipped files of one collection.

    Args:
        origin: the collection's name, for messages.
        on_error: ``"skip"`` warns once per file and continues; ``"raise"`` stops at the first.

    Attributes:
        reasons: the files and why.
    """

    def __init__(self, origin: str, on_error: OnError) -> None:
        self.origin = origin
        self.on_error = on_error
        self.reasons: dict[Path, str] = {}

    def skip(self, error: UnreadableVideoError) -> None:
        """Notes that a file cannot be read."""
        if self.on_error == "raise":
            raise error
        if error.path not in self.reasons:
            self.reasons[error.path] = error.reason
            warn_user(f"Skipped the unreadable video {error.path}: {error.reason}.")

    def without_missing(self, paths: Sequence[Path]) -> set[Path]:
        """The listed files that exist; the others are skipped together, in one warning.

        Raises:
            FileNotFoundError: one is missing and ``on_error="raise"``, or all are.
        """
        missing = [path for path in paths if not path.exists()]
        if missing:
            named = ", ".join(map(str, missing[:_NAMED])) + _and_more(missing)
            found = f"{len(missing)} of the {len(paths)} videos listed by {self.origin} are missing"
            if self.on_error == "raise" or len(missing) == len(paths):
                raise FileNotFoundError(
                    f"Expected the listed videos to exist, but {found}: {named}; put them there, or correct the list "
                    "or the folder that its paths begin from."
                )
            self.reasons.update((path, "the file is missing") for path in missing)
            warn_user(f"Skipped missing videos: {found}: {named}.")
        return set(paths).difference(missing)

    def nothing_readable(self, n_found: int) -> UnreadableVideoError:
        """The error where no file of a collection can be decoded."""
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in list(self.reasons.items())[:_NAMED])
        return UnreadableVideoError(
            Path(self.origin),
            f"expected at least one readable video, got none among {n_found} ({reasons}{_and_more(self.reasons)}); "
            "re-encode them, for instance with ffmpeg to H.264, or pass other videos",
        )


def _and_more(names: Sequence[Path] | dict[Path, str]) -> str:
    return f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
