"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def scratch_path(path: Path) -> Path:
    """Where `whole_write` has a file written first: beside it, hidden, with its suffix, by which writers know formats.

    The name depends on the file's alone, so whoever writes it after a kill leaves nothing behind.
    """
    return path.with_name(f".part-{path.name}")


@contextmanager
def whole_write(path: Path) -> Iterator[Path]:
    """Replaces a file in one step once its new content is on the disk; left with an error, it changes nothing.

    Args:
        path: the file; its folder exists.

    Yields:
        Where to write the content.

    Raises:
        FileNotFoundError: nothing was written there.

    Example:
        >>> with whole_write(Path("notes.txt")) as scratch:
        ...     scratch.write_text("all of it")
    """
    scratch = scratch_path(path)
    try:
        yield scratch
        # A name that reaches the disk before its content would be a torn file after a power cut.
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
