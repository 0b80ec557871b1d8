"""Folders that one process at a time writes into."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from vaportok_rl.runtime.whole_writes import unwritable

LOCK_FILE = ".run.lock"
_HELD: dict[Path, FileLock] = {}


def holds_folder(folder: Path) -> bool:
    """Whether this process has a folder to itself."""
    return folder.resolve() in _HELD


def hold_run_folder(folder: Path) -> None:
    """Takes a run folder for this process, which may have it already.

    The operating system gives it back when the process ends, however it ends.

    Raises:
        FileNotFoundError: there is no such folder; taking it would make one.
        FileExistsError: another process writes into it.
        UnwritableError: nothing can be written there.
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
    """Lets other processes have a run folder that this one holds."""
    lock = _HELD.pop(folder.resolve(), None)
    if lock is not None:
        lock.release()
