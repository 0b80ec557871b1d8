"""The walls of the house: imports point one way, files stay small, names say something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).resolve().parents[1] / "vaportok_rl"
# From top to bottom; a room may import itself and the rooms named after it.
_MAY_IMPORT = {
    "cli": {"experiments", "agents", "envs", "evaluation", "tokenizer", "clips", "runtime"},
    "experiments": {"agents", "envs", "evaluation", "tokenizer", "clips", "runtime"},
    "agents": {"envs", "evaluation", "tokenizer", "clips", "runtime"},
    "envs": {"evaluation", "tokenizer", "clips", "runtime"},
    "evaluation": {"tokenizer", "clips", "runtime"},
    "tokenizer": {"clips", "runtime"},
    "clips": {"runtime"},
    "runtime": set(),
}
_FILES = sorted(_PACKAGE.rglob("*.py"))


def _imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "vaportok_rl" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms & set(_MAY_IMPORT)


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_imports_point_down(room: str) -> None:
    for file in (_PACKAGE / room).rglob("*.py"):
        extra = _imported_rooms(file) - _MAY_IMPORT[room] - {room}
        assert not extra, f"{file.relative_to(_PACKAGE)} imports {extra}"


def test_every_folder_is_a_known_room() -> None:
    rooms = {path.name for path in _PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms == set(_MAY_IMPORT)


@pytest.mark.parametrize("file", _FILES, ids=lambda file: str(file.relative_to(_PACKAGE)))
def test_a_file_is_one_documented_idea(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text))
    assert file.stem not in {"utils", "util", "helpers", "helper", "misc", "common"}
