"""Functions of the user's own, named as text."""

from __future__ import annotations

import os.path
from pathlib import Path

import pytest

from vaportok_rl.runtime.user_function import import_by_name


def test_what_is_named_is_imported_from_a_dotted_module() -> None:
    assert import_by_name("os.path:commonprefix", "policy") is os.path.commonprefix


@pytest.mark.parametrize("path", ["", ":", "json", "json:", ":dumps"])
def test_text_of_another_form_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"Expected a reward term as 'module:name', got '{path}'"):
        import_by_name(path, "reward term")


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("no_such_module_here:f", "ModuleNotFoundError"),
        (".relative:f", "TypeError"),
        ("json:no_such_name", "AttributeError.*no_such_name"),
        ("module_that_divides:f", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_cause(
    path: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_divides.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"Expected an importable policy at '{path}', got {cause}.*PYTHONPATH"):
        import_by_name(path, "policy")
