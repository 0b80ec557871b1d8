"""Locks run folders: one process at a time writes into a folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from vaportok_rl.runtime.whole_writes import unwritable

LOCK_FILE = ".run.lock"
_HELD: dict[Path, FileLock] = {}


def holds_folder(folder: Path) -> bool:
    """Whether this process holds a folder's lock."""
    return folder.resolve() in _HELD


def hold_run_folder(folder: Path) -> None:
    """Locks a run folder for this process; does nothing if it holds the lock already.

    The operating system releases the lock when the process ends.

    Raises:
        FileNotFoundError: there is no such folder.
        FileExistsError: another process holds the lock.
        UnwritableError: the folder cannot be written to.
    """
    place = folder.resolve()
    if place in _HELD:
        return
    if not place.is_dir():
        raise FileNotFoundError(
            f"Expected a run to resume in {folder}, found no such folder; start it without --resume."
        )
    lock = FileLock(place / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileExistsError(
            f"Expected a folder that no other run uses, got {folder}, into which one is writing now; wait for it, "
            "or choose another --out."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    _HELD[place] = lock


def release_run_folder(folder: Path) -> None:
    """Releases the lock of a run folder, if this process holds it."""
    lock = _HELD.pop(folder.resolve(), None)
    if lock is not None:
        lock.release()
