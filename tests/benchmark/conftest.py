"""Small tables of the tiny world in place of the pinned ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vaportok_rl.benchmark import Arena, tables
from vaportok_rl.benchmark.running import opened
from vaportok_rl.benchmark.tables import fingerprint
from vaportok_rl.envs.table.building import TableBuilder, plan_table

CLIPS = {"procedural-v1": "procedural", "stream-v1": "streams"}


@pytest.fixture(scope="session")
def small_tables(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder by table name: a few clips to train on, to tune and to test."""
    made = {}
    for name, clips in CLIPS.items():
        count = 48 if name == "procedural-v1" else 32
        plan = plan_table(tokenizer=tiny_world, clips=clips, count=count, held_out=16, grid=4, latents="summary")
        made[name] = TableBuilder(plan, tmp_path_factory.mktemp("benchmark") / name, measure_error=False).run().folder
    return made


@pytest.fixture(scope="module")
def pinned(small_tables: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """The small tables as if they were the package's."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(tables, "SHIPPED", small_tables["procedural-v1"].parent)
    found = {name: fingerprint(folder) for name, folder in small_tables.items()}
    for module in ("tables", "submissions", "standings"):
        monkeypatch.setattr(f"vaportok_rl.benchmark.{module}.pins", lambda: found)
    monkeypatch.setattr("vaportok_rl.benchmark.arena.find_table", small_tables.__getitem__)
    opened.cache_clear()
    yield small_tables
    monkeypatch.undo()
    opened.cache_clear()


@pytest.fixture(scope="session")
def arena(small_tables: dict[str, Path]) -> Callable[[str], Arena]:
    """An arena by task name."""
    made: dict[str, Arena] = {}

    def of(task: str) -> Arena:
        table = small_tables["stream-v1" if task == "stream-v1" else "procedural-v1"]
        return made.setdefault(task, Arena(task, table))

    return of
