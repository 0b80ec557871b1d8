"""The README's Python blocks run as they stand, but for the length of the training."""

from __future__ import annotations

import re
from pathlib import Path

_README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
_BLOCKS = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)


def test_the_readme_shows_both_commands() -> None:
    assert "python -m pip install . && vaportok-rl train\n" in _README
    assert 'python -m pip install -e ".[test]" && python -m pytest\n' in _README


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
