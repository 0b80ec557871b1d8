"""Architecture: imports point one way and in no circle, folders stay small, names say something."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).resolve().parents[1] / "vaportok_rl"
# From top to bottom; a folder may import itself and the folders after it.
_MAY_IMPORT = {
    "cli": {"benchmark", "experiments", "agents", "envs", "generation", "evaluation", "tokenizer", "clips", "runtime"},
    "benchmark": {"experiments", "agents", "envs", "evaluation", "tokenizer", "clips", "runtime"},
    "experiments": {"agents", "envs", "generation", "evaluation", "tokenizer", "clips", "runtime"},
    "agents": {"envs", "evaluation", "tokenizer", "clips", "runtime"},
    "envs": {"evaluation", "tokenizer", "clips", "runtime"},
    "generation": {"tokenizer", "clips", "runtime"},
    "evaluation": {"tokenizer", "clips", "runtime"},
    "tokenizer": {"clips", "runtime"},
    "clips": {"runtime"},
    "runtime": set(),
}
_FILES = sorted(_PACKAGE.rglob("*.py"))


def _imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names = [node.module]
        for name in names:
            modules |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return {module for module in modules if module.startswith("vaportok_rl.")}


def _imported_rooms(file: Path) -> set[str]:
    return {module.split(".")[1] for module in _imported_modules(file)} & set(_MAY_IMPORT)


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_imports_point_down(room: str) -> None:
    for file in (_PACKAGE / room).rglob("*.py"):
        extra = _imported_rooms(file) - _MAY_IMPORT[room] - {room}
        assert not extra, f"{file.relative_to(_PACKAGE)} imports {extra}"


def test_every_folder_is_a_known_room() -> None:
    rooms = {path.name for path in _PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms == set(_MAY_IMPORT)


def test_every_file_says_what_it_is() -> None:
    for file in _FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert file.stem not in {"utils", "util", "helpers", "helper", "misc", "common"}, file


def test_folders_are_small_enough_to_read() -> None:
    tests = Path(__file__).parent.rglob("*.py")
    for folder in {file.parent for file in (*_FILES, *tests)}:
        assert len(list(folder.glob("*.py"))) <= 14, folder


def test_no_module_imports_itself_by_a_detour() -> None:
    """Imports inside functions count: they would only hide a circle."""
    names = {".".join(("vaportok_rl", *file.relative_to(_PACKAGE).with_suffix("").parts)): file for file in _FILES}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    graph = {name: _imported_modules(file) & set(names) - {name} for name, file in names.items()}
    # A folder's __init__ re-exports what lies in it, which is no circle; modules are sorted without these.
    graph = {name: needed for name, needed in graph.items() if names[name].stem != "__init__"}
    TopologicalSorter(graph).prepare()
