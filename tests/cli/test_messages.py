"""Errors and warnings on the command line name files so that they can be copied."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaportok_rl.cli.main import COMMANDS, main
from vaportok_rl.version import __version__


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A folder with a long name that rich would take for markup, and break over lines."""
    folder = tmp_path / "[red]of the first camera[/red]" / "a name that does not fit into a line of eighty characters"
    folder.mkdir(parents=True)
    return folder


def test_an_error_names_the_path_in_one_piece(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["info", str(marked / "missing")])
    errors = capsys.readouterr().err
    assert errors.startswith("error: Expected ")
    assert str(marked / "missing") in errors


def test_an_error_of_torchs_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        torch.distributions.Categorical(logits=torch.tensor([float("nan")]), validate_args=True)

    monkeypatch.setattr("vaportok_rl.cli.info.Info.run", fail)
    with pytest.raises(ValueError, match="Expected parameter logits"):
        main(["info"])


def test_a_warning_names_the_file_in_one_piece(
    marked: Path, tiny_world: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (marked / "broken.mp4").write_bytes(b"not a video")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit, match="2"):  # nothing is left to measure
            main(["info", tiny_world, "--measure", str(marked)])
    assert f"warning: Skipped the unreadable video {marked / 'broken.mp4'}:" in capsys.readouterr().err


def test_nothing_is_said_of_widgets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("vaportok_rl.cli.info.Info.run", lambda *_: warnings.warn("IProgress not found.", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["info"])
    assert not capsys.readouterr().err


def test_help_needs_no_torch_and_is_the_same_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import contextlib, sys\n"
        "from vaportok_rl.cli.main import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    sys.argv[1:] = [command, '--help']\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main()\n"
        "assert 'torch._C' not in sys.modules\n"
    )
    quick = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    for command in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
    # Frames around the text depend on the stream's encoding.
    words = [re.findall(r"\w+", text) for text in (quick.stdout, capsys.readouterr().out)]
    assert words[0] == words[1]
    assert not quick.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version"], __version__),
        (["--help"], "Compare policies"),
        ([], "got none"),
        (["trian", "--seed", "1"], "did you mean 'train'"),
        (["--seed", "1"], "got '--seed'"),
    ],
)
def test_without_a_command(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_a_stream_that_lacks_a_character_shows_another(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    stream.seek(0)
    assert "at least 2" in stream.read()


@pytest.mark.parametrize(("command", "seed"), [("train", "-1"), ("train", "5000000000"), ("rollout", "-1")])
def test_seeds_out_of_range(command: str, seed: str, tiny_world: str, fails: Callable[..., str]) -> None:
    assert seed in fails(command, "--tokenizer", tiny_world, "--seed", seed)
