from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro
import yaml
from filelock import FileLock

from vaportok_rl.experiments.run_folder import (
    CONFIG_FILE,
    command_line,
    create_run_folder,
    plain,
    write_config,
    write_json,
)
from vaportok_rl.experiments.runs.training import TrainSettings
from vaportok_rl.runtime.held_folders import LOCK_FILE, hold_run_folder, release_run_folder
from vaportok_rl.runtime.whole_writes import UnwritableError, scratch_path


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


def test_what_a_kill_leaves_before_the_settings_is_no_content(tmp_path: Path) -> None:
    scratch_path(tmp_path / CONFIG_FILE).write_text("half")
    assert create_run_folder(tmp_path, "grpo", tmp_path) == tmp_path


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("a file")
    with pytest.raises(FileExistsError, match="Expected a new run folder"):
        create_run_folder(tmp_path, "grpo", file)


def test_a_second_run_of_the_same_second_gets_a_name_of_its_own(tmp_path: Path) -> None:
    folders = [create_run_folder(tmp_path, "grpo") for _ in range(3)]
    assert len(set(folders)) == 3


def test_a_folder_that_is_taken_is_refused_before_anything_is_in_it(tmp_path: Path) -> None:
    create_run_folder(tmp_path, "grpo", tmp_path / "run")
    with pytest.raises(FileExistsError, match="nothing was overwritten"):
        create_run_folder(tmp_path, "grpo", tmp_path / "run")


STARTED = """
import sys, time
from pathlib import Path
from vaportok_rl.experiments.run_folder import create_run_folder
Path(sys.argv[1], f"ready-{sys.argv[2]}").touch()
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
for out in (Path(sys.argv[1], "one"), None):
    try:
        folder = create_run_folder(Path(sys.argv[1], "many"), "x", out)
        (folder / "result").write_text(sys.argv[2])
        print(folder.name, flush=True)
    except FileExistsError as error:
        print("refused" if "Expected" in str(error) else error, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_simultaneous_starts_never_share_a_folder(tmp_path: Path, count: int) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", STARTED, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    while len(list(tmp_path.glob("ready-*"))) < count:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = [[run.stdout.readline().strip() for _ in range(2)] for run in runs]  # type: ignore[union-attr]
    for run in runs:
        run.kill()  # a killed run holds nothing
        run.communicate()
    named = [first for first, _ in said]
    assert sorted(named) == ["one", *["refused"] * (count - 1)]
    assert (tmp_path / "one" / "result").read_text() == str(named.index("one"))
    assert len({second for _, second in said}) == count
    for number, (_, folder) in enumerate(said):
        assert (tmp_path / "many" / folder / "result").read_text() == str(number)
    hold_run_folder(tmp_path / "one")


def test_a_folder_that_another_process_writes_into_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE), pytest.raises(FileExistsError, match="no other run uses"):
        hold_run_folder(tmp_path)
    hold_run_folder(tmp_path)
    release_run_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match=r"Expected to write .*file/run, got: Not a directory"):
        create_run_folder(tmp_path, "grpo", tmp_path / "file/run")


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


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--decisions 64 --seed 3 --no-pretrained --path-length 4 --clips films/a.mp4 --token-budget 32",
        "--reward.preset paper --reward.weights efficiency 2 diversity 0:1@10:20 --reward.terms mine:term other:term",
        "--algo ppo --ppo.learning-rate 0.01",
    ],
)
def test_the_command_of_settings_reads_back_as_those_settings(options: str) -> None:
    settings = tyro.cli(TrainSettings, args=shlex.split(options))
    words = shlex.split(command_line("train", settings))
    assert words[:2] == ["vaportok-rl", "train"]
    assert len(words) == 2 + len(shlex.split(options))
    assert tyro.cli(TrainSettings, args=words[2:]) == settings
