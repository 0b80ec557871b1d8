"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
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
        UnwritableError: the disk is full, or the folder may not be written to.

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
    except BaseException as error:
        # Libraries raise errors of their own where a disk is full: what is left of it tells.
        full = isinstance(error, Exception) and (
            "No space left" in str(error) or (path.parent.is_dir() and shutil.disk_usage(path.parent).free < _NO_ROOM)
        )
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        if full or is_unwritable(error):
            raise unwritable(path, error) from error
        raise


def order_metadata(file: Path) -> None:
    """Sorts the metadata of a safetensors file, which the library writes in an order that changes from call to call.

    Equal tensors and metadata then make equal bytes, as hashes of files need it.
    """
    with file.open("rb+") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        opened.seek(8)
        if len(text) <= size:
            opened.write(text.ljust(size))


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)
# Less than the smallest file that is written whole; a file system keeps a few blocks to itself.
_NO_ROOM = 1 << 16


class UnwritableError(OSError):
    """Nothing can be written there: the disk is full, or the folder is read-only or cannot be made."""


def is_unwritable(error: BaseException) -> bool:
    """Whether the system refused to write: no room, or no right to."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def unwritable(path: object, error: BaseException) -> UnwritableError:
    """The error about a place that cannot be written to, with what the system said."""
    said = (error.strerror if isinstance(error, OSError) else None) or f"no space left on the disk ({error})"
    return UnwritableError(
        f"Expected to write {path}, got: {said}; make room or give this user the right to write there, or choose "
        "another folder."
    )
