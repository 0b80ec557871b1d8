"""Run folders: created once, locked by one process at a time, never overwritten."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from vaportok_rl.runtime.held_folders import LOCK_FILE, hold_run_folder, holds_folder, release_run_folder
from vaportok_rl.runtime.whole_writes import scratch_path, unwritable, whole_write
from vaportok_rl.version import __version__

CONFIG_FILE = "config.yaml"


def create_run_folder(root: Path, name: str, folder: Path | None = None) -> Path:
    """Creates ``root/<time>-<name>``, or exactly ``folder`` if given, and locks it until the process ends.

    If several runs request one name at the same time, one gets it; a default name that exists gets a number.

    Raises:
        FileExistsError: the folder exists and is not empty, or another run has locked it.
        UnwritableError: it cannot be created.
    """
    chosen = folder if folder is not None else root / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for number in itertools.count(2):
        try:
            chosen.mkdir(parents=True, exist_ok=folder is not None)
            break
        except FileExistsError as error:
            if folder is not None:  # a file
                raise _exists(chosen) from error
            chosen = root / f"{chosen.name.partition(f'-{name}')[0]}-{name}-{number}"
        except OSError as error:
            raise unwritable(chosen, error) from error
    if holds_folder(chosen):
        raise _exists(chosen)
    hold_run_folder(chosen)
    # A killed run may have left its lock and half a config.yaml.
    leftovers = (LOCK_FILE, scratch_path(chosen / CONFIG_FILE).name)
    if any(entry.name not in leftovers for entry in chosen.iterdir()):
        release_run_folder(chosen)
        raise _exists(chosen)
    return chosen


def _exists(folder: Path) -> FileExistsError:
    return FileExistsError(
        f"Expected a new run folder, got {folder}, which exists; nothing was overwritten. Choose another --out, move "
        "it away, or continue an interrupted run with --resume if the command has it."
    )


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain data for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    # str() also turns string subclasses, such as torch's version, into what YAML can write.
    return value if isinstance(value, (int, float, bool)) or value is None else str(value)


def write_config(folder: Path, config: Any, **extra: Any) -> Path:
    """Writes ``config.yaml``: the settings and the versions of the software."""
    import torch

    versions = {"vaportok_rl": __version__, "torch": torch.__version__, "commit": _git_commit()}
    content = plain({**plain(config), **extra, "versions": versions})
    path = folder / CONFIG_FILE
    with whole_write(path) as scratch:
        scratch.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def command_line(command: str, settings: Any) -> str:
    """The command with these settings: the options that differ from the defaults."""
    return shlex.join(["vaportok-rl", command, *_options(settings, type(settings)(), "")])


def _options(settings: Any, usual: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(settings):
        value, default = getattr(settings, field.name), getattr(usual, field.name)
        option = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _options(value, default, f"{option}.")
        elif value != default and isinstance(value, bool):
            yield f"--{option}" if value else f"--{prefix}no-{field.name.replace('_', '-')}"
        elif value != default:
            words = itertools.chain(*value.items()) if isinstance(value, Mapping) else value
            several = isinstance(value, Mapping | tuple | list)
            yield from (f"--{option}", *(map(str, words) if several else [str(value)]))


def check_settings_unchanged(folder: Path, config: Any, free: Collection[str] = ()) -> None:
    """Checks that a run is resumed with the settings in its ``config.yaml``.

    Args:
        folder: of the run to resume.
        config: the settings now.
        free: names of settings that may differ.

    Raises:
        ValueError: another setting differs.
    """
    saved: Mapping[str, Any] = yaml.safe_load((folder / CONFIG_FILE).read_text())
    mine = {name: value for name, value in plain(config).items() if name not in free}
    changed = [name for name in sorted(mine) if saved.get(name) != mine[name]]
    if changed:
        shown = "; ".join(f"{name}: {saved.get(name)!r} then, {mine[name]!r} now" for name in changed[:3])
        raise ValueError(
            f"Expected the settings that the run in {folder} was started with, got other values for "
            f"{', '.join(changed)} ({shown}); repeat its command with --resume, or start a new run folder."
        )


@contextlib.contextmanager
def preparing(folder: Path) -> Iterator[None]:
    """Removes a new run folder if its run cannot begin, so that the corrected command finds it new again."""
    try:
        yield
    except Exception:
        if all(entry.name in (LOCK_FILE, CONFIG_FILE) for entry in folder.iterdir()):
            release_run_folder(folder)
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_json(path: Path, content: Any) -> Path:
    """Writes JSON with sorted keys, atomically."""
    with whole_write(path) as scratch:
        scratch.write_text(json.dumps(plain(content), indent=2, sort_keys=True) + "\n")
    return path


def _git_commit() -> str | None:
    """The commit of the checkout that holds this package, if it is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
