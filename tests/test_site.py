"""The documentation site builds without a warning, and every public name has a page."""

from __future__ import annotations

import importlib
import io
from collections import defaultdict
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"


def _build(folder: Path, builder: str) -> set[str]:
    """Builds the site and gives the names that it describes."""
    application = pytest.importorskip("sphinx.application")
    warnings = io.StringIO()
    site = application.Sphinx(_DOCS, _DOCS, folder / "site", folder / "trees", builder, status=None, warning=warnings)
    site.build(force_all=True)
    assert warnings.getvalue() == ""
    return set(site.env.domaindata["py"]["objects"])


@pytest.mark.filterwarnings("ignore")  # Sphinx's own
def test_it_builds_without_a_warning_and_describes_every_public_name(tmp_path: Path) -> None:
    described = _build(tmp_path, "dummy")
    public: dict[int, list[str]] = defaultdict(list)
    for init in (_ROOT / "vaportok_rl").rglob("__init__.py"):
        package = ".".join(init.parent.relative_to(_ROOT).parts)
        module = importlib.import_module(package)
        for name in set(getattr(module, "__all__", ())) - {"__version__"}:
            public[id(getattr(module, name))].append(f"{package}.{name}")
    assert len(public) > 100
    for names in public.values():
        assert described.intersection(names), names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_its_html_builds(tmp_path: Path) -> None:
    _build(tmp_path, "html")
    assert (tmp_path / "site" / "api" / "vaportok_rl.envs.VaporReward.html").is_file()
