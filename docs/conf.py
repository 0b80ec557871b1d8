"""Settings of the documentation site: `python -m sphinx -W -b html docs docs/_build`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import vaportok_rl
from vaportok_rl.experiments.environment_pages import registered_environments

project = "VaporTok-RL"
author = "The VaporTok-RL developers"
release = vaportok_rl.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "tutorials/runs"]
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_static_path = ["_static"]
default_role = "py:obj"
myst_heading_anchors = 3
nb_execution_mode = "off"  # the suite runs the notebooks
nb_output_stderr = "remove"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_ivar = True

_DOCS = Path(__file__).parent
_PACKAGE = Path(vaportok_rl.__file__).parent


def public_names() -> dict[str, dict[str, str]]:
    """By package: where each exported name has its page, which is in the first package that exports the same object."""
    inits = sorted(_PACKAGE.rglob("__init__.py"), key=lambda file: (len(file.parts), file))
    found: dict[str, dict[str, str]] = {}
    places: dict[int, str] = {}
    for init in inits:
        package = ".".join(init.parent.relative_to(_PACKAGE.parent).parts)
        module = importlib.import_module(package)
        names = [name for name in getattr(module, "__all__", ()) if not name.startswith("__")]
        if names:
            found[package] = {
                name: places.setdefault(id(getattr(module, name)), f"{package}.{name}") for name in sorted(names)
            }
    return found


def write_reference(folder: Path) -> None:
    """Writes a page for each package and for each public name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for package, places in public_names().items():
        own = {place for place in places.values() if place.rpartition(".")[0] == package}
        if not own:
            continue
        lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", ""]
        for name, place in places.items():
            value = getattr(importlib.import_module(package), name)
            told = "" if _kind(value) == "data" else (inspect.getdoc(value) or "").partition("\n")[0]
            lines.append(f"- :doc:`{name} <{place}>`" + (f": {told}" if told else ""))
        _write(folder / f"{package}.rst", *lines)
        for place in own:
            module, _, name = place.rpartition(".")
            kind = _kind(getattr(importlib.import_module(module), name))
            members = ("   :members:", "   :show-inheritance:") if kind == "class" else ()
            at = f".. currentmodule:: {module}"
            head = (":orphan:", "", name, "=" * len(name), "", at, "")  # in the sidebar there are the packages alone
            _write(folder / f"{place}.rst", *head, f".. auto{kind}:: {name}", *members)


def _kind(value: Any) -> str:
    return "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "data"


def _write(page: Path, *lines: str) -> None:
    page.write_text("\n".join((*lines, "")), encoding="utf-8")


def _docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Mends the docstrings that Sphinx cannot take as they are."""
    if "## Description" in lines:  # Markdown, of which a page of its own is made
        entry = f"{value.__module__}:{value.__name__}"
        page = next(page for page, spec in registered_environments().items() if spec.entry_point == entry)
        lines[lines.index("## Description") :] = [f"Everything about it: :doc:`/environments/{page}`."]
    if what == "data":  # a constant is described where it is assigned
        bare = name.rpartition(".")[2]
        ours = {name: found for name, found in sys.modules.items() if name.startswith("vaportok_rl.")}
        for module in [name for name, found in ours.items() if getattr(found, bare, None) is value]:
            lines[:] = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", bare), lines)
    while "```python" in lines:
        begin = lines.index("```python")
        end = lines.index("```", begin)
        lines[begin : end + 1] = [".. code-block:: python", "", *(f"   {line}" for line in lines[begin + 1 : end])]
    rows = [number for number, line in enumerate(lines) if line.startswith("| ")]
    if len(rows) > 1:  # a Markdown table
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", lines[row])[1:-1]] for row in rows]
        table = [".. list-table::", "   :header-rows: 1", ""]
        for row in (cells[0], *cells[2:]):
            table += [f"   {mark} - {cell}" for mark, cell in zip("*" + " " * len(row), row, strict=False)]
        lines[rows[0] : rows[-1] + 1] = [*table, ""]


def _repository() -> str | None:
    """``OWNER/NAME`` of the repository on GitHub, if it is known."""
    asked = ("git", "config", "--get", "remote.origin.url")
    remote = subprocess.run(asked, cwd=_DOCS, capture_output=True, text=True, check=False).stdout
    found = re.search(r"github\.com[:/](\S+?)(?:\.git)?\s*$", remote)
    return os.environ.get("GITHUB_REPOSITORY") or (found and found[1])


def _badge(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the badge of Colab below a tutorial's title; without a known repository it leads to an upload."""
    if not page.startswith("tutorials/"):
        return
    notebook, place = json.loads(source[0]), _repository()
    address = f"github/{place}/blob/main/docs/{page}.ipynb" if place else "#upload=true"
    badge = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    name = page.rpartition("/")[2]
    links = f"\n{badge}(https://colab.research.google.com/{address}) {{download}}`the notebook <{name}.ipynb>`\n"
    notebook["cells"][0]["source"].insert(1, links)
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> None:
    """Sphinx calls this before it looks for pages."""
    write_reference(_DOCS / "api")
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("source-read", _badge)
