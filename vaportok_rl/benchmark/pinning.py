"""Builds all tables of the benchmark for the weights of this package, and pins their hashes.

``python -m vaportok_rl.benchmark.pinning OUT`` writes a folder per table and ``OUT/pins.json``; ``--ship`` copies them
into the package, which the step ``benchmark-tables`` of the rebuild does too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import tyro

from vaportok_rl.benchmark.tables import PINS_FILE, SHIPPED, build_table, fingerprint
from vaportok_rl.benchmark.tasks import TABLES
from vaportok_rl.runtime.held_folders import LOCK_FILE
from vaportok_rl.runtime.whole_writes import whole_write


def main(out: Annotated[Path, tyro.conf.Positional], ship: bool = False) -> None:
    """Build all tables of the benchmark, and pin their hashes.

    Args:
        out: folder of the tables; those that are there already are not built again.
        ship: also replace the tables and hashes in the package.
    """
    for name in TABLES:
        build_table(name, out / name)
    with whole_write(out / PINS_FILE) as scratch:
        scratch.write_text(json.dumps({name: fingerprint(out / name) for name in TABLES}, indent=2) + "\n")
    if ship:
        shutil.rmtree(SHIPPED, ignore_errors=True)
        shutil.copytree(out, SHIPPED, ignore=shutil.ignore_patterns(LOCK_FILE))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.benchmark.pinning")
