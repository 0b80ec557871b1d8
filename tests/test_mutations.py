"""Tests of the tests: each of these changes to the code must turn a named test red.

The quick test sees that every change still applies. ``pytest -m slow tests/test_mutations.py`` applies one after the
other to a copy of the tree and runs the test that it names, a few seconds a change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

_ROOT = Path(__file__).resolve().parents[1]


class Change(NamedTuple):
    """A wrong edit: its file, what it does, the test that must fail, text that occurs once, and what replaces it."""

    file: str
    what: str
    test: str
    right: str
    wrong: str


def _read_changes() -> list[Change]:
    changes: list[Change] = []
    file = ""
    for line in (_ROOT / "tests" / "mutations.txt").read_text("utf-8").splitlines()[1:]:
        if line.startswith(("-", "+")):
            field = "right" if line[0] == "-" else "wrong"
            before = getattr(changes[-1], field)
            changes[-1] = changes[-1]._replace(**{field: f"{before}\n{line[1:]}" if before else line[1:]})
        elif line.startswith("file "):
            file = line.removeprefix("file ")
        elif line:
            changes.append(Change(file, *line.rsplit(": ", 1), right="", wrong=""))
    return changes


CHANGES = _read_changes()


@cache
def _place(test: str) -> str:
    """A test's address, from its name."""
    files = [file for file in (_ROOT / "tests").rglob("test_*.py") if f"\ndef {test}(" in file.read_text("utf-8")]
    assert len(files) == 1, f"{test}: {files}"
    return f"{files[0].relative_to(_ROOT).as_posix()}::{test}"


@pytest.mark.parametrize("change", CHANGES, ids=[change.what for change in CHANGES])
def test_a_change_still_applies(change: Change) -> None:
    assert (_ROOT / change.file).read_text("utf-8").count(change.right) == 1
    assert _place(change.test)


def _ends(tree: Path, *tests: str) -> tuple[int, str]:
    """Exit status and the end of the output of pytest in a tree."""
    options = "-m pytest -q -x -p no:cacheprovider -o addopts=--import-mode=importlib"
    done = subprocess.run(
        [sys.executable, *options.split(), *tests],
        cwd=tree,
        # Compiled files are told apart by the second and the size, which a change may leave as they are.
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout[-2000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the named tests pass."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("vaportok_rl", "tests"):
        shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "pyproject.toml", copy)
    code, shown = _ends(copy, *sorted({_place(change.test) for change in CHANGES}))
    assert code == 0, shown
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=[change.what for change in CHANGES])
def test_a_wrong_change_turns_its_test_red(tree: Path, change: Change) -> None:
    file = tree / change.file
    right = file.read_text("utf-8")
    file.write_text(right.replace(change.right, change.wrong), "utf-8")
    try:
        code, shown = _ends(tree, _place(change.test))
    finally:
        file.write_text(right, "utf-8")
    assert code == 1, f"{change.what}: {shown}"
