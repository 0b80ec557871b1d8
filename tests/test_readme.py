"""The README's Python blocks run as they stand, but for the length of the training."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import vaportok_rl

_ROOT = Path(__file__).resolve().parents[1]
_README = (_ROOT / "README.md").read_text()
_BLOCKS = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)


def test_the_readme_shows_both_commands() -> None:
    assert "python -m pip install . && vaportok-rl train\n" in _README
    assert 'python -m pip install -e ".[test]" && python -m pytest\n' in _README


def test_the_workflow_runs_the_test_command_on_every_python_that_is_declared() -> None:
    jobs = yaml.safe_load((_ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    command = next(line for line in _README.splitlines() if line.endswith("&& python -m pytest"))
    commands = [step["run"] for step in jobs["suite"]["steps"] if "run" in step]
    assert commands == [command, ".ci/wheel"]
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    declared = [line.rpartition(" ")[2] for line in project["classifiers"] if " :: Python :: " in line]
    assert jobs["suite"]["strategy"]["matrix"]["python"] == declared
    assert jobs["oldest"]["steps"][-1] == {"run": ".ci/oldest"}
    assert project["requires-python"] == f">={declared[0]}"
    for script in (".ci/run", ".ci/oldest", ".ci/wheel"):
        assert (_ROOT / script).stat().st_mode & 0o111, script


def test_the_version_is_the_newest_of_the_changelog_and_the_citation() -> None:
    version = vaportok_rl.__version__
    assert re.search(r"^## (\d+\.\d+\.\d+)", (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version  # type: ignore[index]
    assert yaml.safe_load((_ROOT / "CITATION.cff").read_text())["version"] == version


def test_the_python_blocks_run() -> None:
    assert len(_BLOCKS) == 2
    for block in _BLOCKS:
        code = (
            block.replace("40_960", "64").replace("num_envs=128", "num_envs=16").replace("num_envs=64", "num_envs=16")
        )
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_pictures_it_shows_are_there() -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", _README):
        assert (Path(__file__).resolve().parents[1] / picture).is_file(), picture
