"""The documentation is up to date, its Python blocks run, and what it shows and links is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vaportok_rl  # noqa: F401 (registers the environments)
from vaportok_rl.experiments.environment_pages import COMMAND, write_pages
from vaportok_rl.experiments.gallery import FRAME, SHEET

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
_PAGES = sorted(_DOCS.rglob("*.md"))
_BLOCKS = [
    pytest.param(page, block, id=f"{page.relative_to(_DOCS)}-{number}")
    for page in _PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


def test_the_environments_pages_are_up_to_date(tmp_path: Path) -> None:
    fresh = {path.name: path.read_text(encoding="utf-8") for path in write_pages(tmp_path)}
    committed = {path.name: path.read_text(encoding="utf-8") for path in (_DOCS / "environments").iterdir()}
    advice = f"run `{COMMAND}` and commit what it writes"
    assert set(committed) == set(fresh), f"{advice}; remove the pages of environments that are gone"
    for name, text in fresh.items():
        assert committed[name] == text, f"docs/environments/{name} is out of date: {advice}"


@pytest.mark.parametrize(("page", "block"), _BLOCKS)
def test_the_python_blocks_run(page: Path, block: str) -> None:
    exec(compile(block, str(page.relative_to(_ROOT)), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_DOCS)))
def test_what_a_page_shows_and_links_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("name", [FRAME, SHEET])
def test_the_gallery_is_committed_and_small(name: str) -> None:
    assert (_DOCS / "images" / name).stat().st_size <= 300_000
