"""Errors and warnings on the command line name files so that they can be copied."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from vaportok_rl.cli.main import main


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
        torch.distributions.Categorical(logits=torch.tensor([float("nan")]))

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
