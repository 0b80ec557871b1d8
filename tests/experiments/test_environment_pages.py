from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import vaportok_rl  # noqa: F401 (registers the environments)
from vaportok_rl.experiments.environment_pages import (
    HEADINGS,
    class_documentation,
    environment_page,
    registered_environments,
    write_pages,
)

_SECTIONS = "\n\n".join(f"    ## {heading}\n    About it." for heading in HEADINGS)


class _Documented(gymnasium.Env[Any, Any]):
    __doc__ = f"Toss a coin.\n\n    A second paragraph.\n\n{_SECTIONS}\n    "
    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    reward_space = spaces.Box(0, 1, (2,), np.float32)


class _Heir(_Documented):
    pass


class _Disordered(_Documented):
    __doc__ = (
        (_Documented.__doc__ or "")
        .replace("## Rewards", "## R")
        .replace("## Description", "## Rewards")
        .replace("## R\n", "## Description\n")
    )


@pytest.fixture(autouse=True)
def _other_environments() -> Iterator[None]:
    """Registers environments beside those of the package, and takes them away again."""
    before = dict(gymnasium.registry)
    gymnasium.register("other/Coin-v0", entry_point=_Documented)
    gymnasium.register("Coin-v0", entry_point=_Documented)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def _register(entry_point: Any, name: str = "MO-Coin-v3") -> gymnasium.envs.registration.EnvSpec:
    gymnasium.register(f"vaportok/{name}", entry_point=entry_point)
    return gymnasium.spec(f"vaportok/{name}")


def test_only_our_environments_have_pages_and_the_newest_version_counts() -> None:
    ours = {entry for entry in gymnasium.registry if entry.startswith("vaportok/")}
    assert {spec.id for spec in registered_environments().values()} == ours
    for version in (9, 10, 2):
        _register(_Documented, f"MO-Coin-v{version}")
    assert registered_environments()["mo_coin"].id == "vaportok/MO-Coin-v10"
    assert len(registered_environments()) == len(ours) + 1


def test_a_page_says_how_to_make_the_environment_and_what_its_spaces_are() -> None:
    page = environment_page(_register(_Documented))
    assert "\n# MO-Coin\n" in page
    assert "\nToss a coin.\n\nA second paragraph.\n" in page
    assert re.findall(r"^\| (.+) \| `(.+)` \|$", page, re.MULTILINE) == [
        ("id", "vaportok/MO-Coin-v3"),
        ("action space", "Discrete(2)"),
        ("observation space", "Box(0.0, 1.0, (3,), float32)"),
        ("reward space", "Box(0.0, 1.0, (2,), float32)"),
    ]
    assert 'env = gymnasium.make("vaportok/MO-Coin-v3")' in page
    assert re.findall(r"^## (.+)\nAbout it\.$", page, re.MULTILINE) == list(HEADINGS)


@pytest.mark.parametrize("entry_point", [gymnasium.Env, _Heir, _Disordered])
def test_incomplete_documentation_is_refused(entry_point: Any) -> None:
    spec = _register(entry_point)
    with pytest.raises(ValueError, match=r"docstring of vaportok/MO-Coin-v3 to have the headings Description, .*; got"):
        class_documentation(spec)


def test_the_index_links_every_page(tmp_path: Path) -> None:
    written = write_pages(tmp_path / "new" / "folder")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    index = (tmp_path / "new" / "folder" / "README.md").read_text()
    linked = dict(re.findall(r"^- \[`(.+)`\]\((.+)\): .+", index, re.MULTILINE))
    assert set(linked) == {spec.id for spec in registered_environments().values()}
    assert set(linked.values()) == {path.name for path in written} - {"README.md"}
    for path in written:
        assert path.read_text().endswith("\n")
