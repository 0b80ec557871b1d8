"""The benchmark's outcome tables: found in the package or elsewhere, compared with their hashes, or built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from vaportok_rl.benchmark.tasks import TABLES
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.envs.table.hub import fetch_table as from_hub
from vaportok_rl.envs.table.manifest import MANIFEST_FILE
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.runtime.machine import user_cache
from vaportok_rl.runtime.messages import did_you_mean

TOKENIZER = "nano"
SHIPPED = Path(__file__).parent / "shipped"
PINS_FILE = "pins.json"
# One file a split: the tables are small.
_SHARD_CLIPS = 4096


def check_name(name: str) -> str:
    """The name of a table.

    Raises:
        ValueError: there is no such table.
    """
    if name not in TABLES:
        hint = did_you_mean(name, TABLES, "see `vaportok-rl benchmark tasks`.")
        raise ValueError(f"Expected a table of the benchmark ({', '.join(TABLES)}), got {name!r}; {hint}")
    return name


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of a table's manifest, which holds the hashes of everything in it."""
    manifest = json.loads((Path(folder) / MANIFEST_FILE).read_bytes())
    return str(manifest["sha256"])


@cache
def pins() -> dict[str, str]:
    """The hash of every table, by name; "unpinned" until it is built for these weights."""
    path = SHIPPED / PINS_FILE
    return dict.fromkeys(TABLES, "unpinned") | (json.loads(path.read_text()) if path.is_file() else {})


def kept_at(name: str) -> Path:
    """Where a fetched or built table is kept: in the user's cache folder, under its hash."""
    check_name(name)
    return user_cache() / "tables" / f"{name}-{pins()[name][:12]}"


def verified(name: str, folder: Path) -> Path:
    """The folder, if it holds the table, whole.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is another table, or damaged.
    """
    table = OutcomeTable.load(folder)
    found = fingerprint(folder)
    if found != pins()[name]:
        raise ValueError(
            f"Expected the table {name} with the hash {pins()[name][:12]}…, got {found[:12]}… in {folder}: it was "
            f"built from other weights, clips or software. Get the right one: vaportok-rl table get {name}."
        )
    table.verify()
    return folder


def find_table(name: str) -> Path:
    """The folder of a table: in the package, or where `fetch_table` put it.

    Raises:
        ValueError: there is no such table, or what is there does not match.
        FileNotFoundError: it is in neither place.
    """
    check_name(name)
    for folder in (SHIPPED / name, kept_at(name)):
        if (folder / MANIFEST_FILE).is_file():
            return verified(name, folder)
    raise FileNotFoundError(
        f"Expected the table {name} in the package or in {kept_at(name)}, found neither; run `vaportok-rl table get "
        f"{name} --source FOLDER_OR_HUB_ID`, or build it: `vaportok-rl table get {name} --build`."
    )


def fetch_table(name: str, source: str) -> Path:
    """Copies a table from a folder, or from a data set of the Hugging Face hub, to the user's cache folder.

    Args:
        name: among `TABLES`.
        source: a folder that holds the table or a folder of its name, or a hub id ``owner/name`` of a data set that
            `OutcomeTable.push_to_hub` made.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: what is there does not match; nothing is copied.
    """
    check_name(name)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = from_hub(source)
    found = verified(name, folder / name if (folder / name).is_dir() else folder)
    target = kept_at(name)
    if found.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(found, target, dirs_exist_ok=True)
    return target


def build_table(name: str, folder: Path, on_decodes: Callable[[int], None] = lambda count: None) -> OutcomeTable:
    """Builds a table for the weights of this package; its hash may differ from the pinned one on other machines."""
    spec = TABLES[check_name(name)]
    plan = plan_table(
        tokenizer=TOKENIZER,
        clips=spec.clips,
        count=spec.train + spec.validation,
        held_out=spec.test,
        latents="summary",
        precision="float32",
        shard_clips=_SHARD_CLIPS,
    )
    return TableBuilder(plan, folder).run(on_decodes)
