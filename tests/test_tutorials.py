"""The tutorials run in a short form, and hold no place of the machine that ran them."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from vaportok_rl.cli.main import main

_FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
# What the cell tagged `parameters` assigns, but short.
_QUICK = {
    "benchmark": "decisions = 1024",
    "design-a-reward": "clips, held_out_clips, decisions, scenes = 16, 8, 1, 1",
    "first-policy": "decisions, scenes, held_out_scenes = 1, 1, 1",
    "own-optimiser": "clips, held_out_clips, rounds = 16, 8, 2",
    "own-videos": "films, film_clips, count, training = 2, 8, 8, '--decisions 64 --scenes 1 --held-out-scenes 1'",
    "paper-table": "clips, held_out_clips, decisions, scenes = 16, 8, 64, 1",
    "train-a-world": "steps, batch_size, clips = 4, 4, 4",
}


def _command(line: str) -> None:
    main(shlex.split(line)[1:])


def _run(source: str, name: str, names: dict[str, Any]) -> None:
    """Runs a cell and shows its last expression, as a notebook does."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), name, "exec"), names)
    if last is not None:
        assert repr(eval(compile(ast.Expression(last.value), name, "eval"), names))


@pytest.mark.filterwarnings("ignore:rich is experimental")  # tqdm, which Stable-Baselines3 silences when it is imported
@pytest.mark.parametrize("name", sorted(path.stem for path in _FOLDER.glob("*.ipynb")))
def test_a_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (_FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 500_000
    assert str(Path.home()) + "/" not in text
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names: dict[str, Any] = {"_command": _command, "__name__": "tutorial"}
    for cell in json.loads(text)["cells"]:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] != "code" or "install" in tags:
            continue
        source = re.sub(r"^!(vaportok-rl .*)$", r"_command(f'\1')", "".join(cell["source"]), flags=re.MULTILINE)
        _run(source, name, names)
        if "parameters" in tags:
            before = set(names)
            exec(_QUICK[name], names)
            assert set(names) == before, "a short form of names that the notebook does not have"
    plt.close("all")


def test_outputs_are_what_a_terminal_shows_in_the_end() -> None:
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    execute = runpy.run_path(str(_FOLDER.parent / "execute.py"))
    pieces = ["\x1b[?25l\x1b[2K 0 % left", "\r\n", "\x1b[2K50 %\r\x1b[2K100 %\r\n\x1b[1mta", "ble\x1b[0m\n"]
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in pieces]
    outputs.insert(2, nbformat.v4.new_output("stream", name="stderr", text="a warning"))
    outputs.append(nbformat.v4.new_output("display_data", data={"text/plain": "a picture"}))
    found = execute["shown"](outputs)
    assert [output.output_type for output in found] == ["stream", "display_data"]
    assert found[0].text == " 0 % left\n100 %\ntable\n"
