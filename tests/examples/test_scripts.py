"""What holds for every example script."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
_TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("script", _EXAMPLES, ids=lambda path: path.stem)
def test_says_how_to_run_it_and_is_run(script: Path) -> None:
    source = script.read_text()
    assert f"python examples/{script.name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert f'"{script.stem}"' in _TESTS, "no test runs this example"
    assert len(source.splitlines()) <= 250
