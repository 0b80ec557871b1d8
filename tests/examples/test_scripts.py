"""What holds for every example script."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import tyro

_EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
_TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("script", _EXAMPLES, ids=lambda path: path.stem)
def test_says_how_to_run_it_and_is_run(script: Path) -> None:
    source = script.read_text()
    assert f"python examples/{script.name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert f'"{script.stem}"' in _TESTS, "no test runs this example"
    assert len(source.splitlines()) <= 250


@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
@pytest.mark.parametrize("script", _EXAMPLES, ids=lambda path: path.stem)
def test_the_command_it_shows_is_understood(script: Path) -> None:
    source = script.read_text()
    shown = re.search(rf"python examples/{script.name}((?: --[\w-]+ [\w.-]+)*)", source)
    assert shown
    if "class Arguments" not in source:
        assert not shown[1], "it takes no options"
        return
    for package in ("sb3_contrib", "skrl", "torchrl", "ray", "tianshou", "mo_gymnasium"):
        if f"from {package}" in source:
            pytest.importorskip(package)
    tyro.cli(importlib.import_module(script.stem).Arguments, args=shown[1].split())
