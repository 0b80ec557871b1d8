"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def scratch_path(path: Path) -> Path:
    """The temporary file of `whole_write`: hidden, in the same folder, with the same suffix.

    Its name depends only on the file's name, so the next write after a kill replaces it.
    """
    return path.with_name(f".part-{path.name}")


@contextmanager
def whole_write(path: Path) -> Iterator[Path]:
    """Replaces a file in one step when its new content is on the disk; on an error nothing changes.

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
        # A name that reached the disk before its content would be a torn file after a power cut.
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException as error:
        # Libraries raise their own errors when a disk is full, so the free space is checked.
        full = isinstance(error, Exception) and (
            "No space left" in str(error) or (path.parent.is_dir() and shutil.disk_usage(path.parent).free < _NO_ROOM)
        )
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        if full or is_unwritable(error):
            raise unwritable(path, error) from error
        raise


def writable_folder(folder: Path) -> Path:
    """A folder that this process can write into, made if missing: to be asked before hours of work.

    Raises:
        UnwritableError: it is a file, or cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise unwritable(folder, error) from error


def order_metadata(file: Path) -> None:
    """Sorts the metadata of a safetensors file, so that equal content gives equal bytes and hashes.

    The library writes it in an order that changes from call to call.
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
# Free bytes below which a disk counts as full; a file system reserves a few blocks.
_NO_ROOM = 1 << 16


class UnwritableError(OSError):
    """A place cannot be written to: the disk is full, or the folder is read-only or cannot be made."""


def is_unwritable(error: BaseException) -> bool:
    """Whether the system refused to write, for lack of space or permission."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def unwritable(path: object, error: BaseException) -> UnwritableError:
    """The error about a place that cannot be written to, with what the system said."""
    said = (error.strerror if isinstance(error, OSError) else None) or f"no space left on the disk ({error})"
    return UnwritableError(
        f"Expected to write {path}, got: {said}; make room or give this user the right to write there, or choose "
        "another folder."
    )
