"""The benchmark's tables: found by name, and refused if they do not match."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vaportok_rl.benchmark import tables
from vaportok_rl.benchmark.tables import fetch_table, find_table, kept_at
from vaportok_rl.cli.main import main

NAME = "procedural-v1"


@pytest.fixture
def elsewhere(pinned: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The pinned table in a folder of the user's; none in the package."""
    monkeypatch.setattr(tables, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(pinned[NAME], tmp_path / "theirs" / NAME))


def test_a_table_is_fetched_once_and_found_from_then_on(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="--build"):
        find_table(NAME)
    main(["table", "get", NAME, "--source", str(elsewhere.parent)])
    assert "48 of" in capsys.readouterr().out
    assert find_table(NAME) == kept_at(NAME)
    assert fetch_table(NAME, str(elsewhere)) == kept_at(NAME)


def test_what_does_not_match_is_refused(elsewhere: Path, pinned: dict[str, Path], fails: Callable[..., str]) -> None:
    assert "built from other" in fails("table", "get", NAME, "--source", str(pinned["stream-v1"]))
    shard = next(elsewhere.glob("test-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert shard.name in fails("table", "get", NAME, "--source", str(elsewhere))
    assert not kept_at(NAME).exists()
    assert NAME in fails("table", "get", "procedural-v2")
