from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from vaportok_rl.experiments.runs.run_folder import create_run_folder, plain, write_config, write_json


@dataclass(frozen=True)
class _Settings:
    name: str
    values: tuple[int, ...]
    folder: Path


def test_a_named_folder_is_made_under_the_root(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path / "runs", "grpo")
    assert folder.is_dir()
    assert folder.parent == tmp_path / "runs"
    assert folder.name.endswith("-grpo")


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="nothing was overwritten"):
        create_run_folder(tmp_path, "grpo", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("a file")
    with pytest.raises(FileExistsError, match="Expected a new run folder"):
        create_run_folder(tmp_path, "grpo", file)


def test_config_reads_back_as_plain_data(tmp_path: Path) -> None:
    path = write_config(tmp_path, _Settings("x", (1, 2), Path("a/b")), extra={"scale": 2.0})
    content = yaml.safe_load(path.read_text())
    assert content["name"] == "x"
    assert content["values"] == [1, 2]
    assert content["folder"] == "a/b"
    assert content["extra"] == {"scale": 2.0}
    assert set(content["versions"]) == {"vaportok_rl", "torch", "commit"}


def test_json_holds_no_nan(tmp_path: Path) -> None:
    path = write_json(tmp_path / "x.json", {"b": float("nan"), "a": (1, float("inf"))})
    assert json.loads(path.read_text()) == {"a": [1, None], "b": None}
    assert list(tmp_path.iterdir()) == [path]


def test_plain_keeps_numbers_and_none() -> None:
    assert plain({"a": 1, "b": 2.5, "c": True, "d": None, "e": "text"}) == {
        "a": 1,
        "b": 2.5,
        "c": True,
        "d": None,
        "e": "text",
    }
