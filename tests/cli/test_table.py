"""``vaportok-rl table`` and ``--table`` end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from vaportok_rl.cli.main import main


@pytest.fixture
def table(tiny_world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "table"
    main(["table", "build", "--tokenizer", tiny_world, "--count", "8", "--held-out", "6", "--out", str(folder)])
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("8 of 1000000, 1 shard,", "5 measured of 16", "% of the mean squared error", f'table="{folder}"'):
        assert words in printed
    return folder


def test_describe_and_verify(table: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]) -> None:
    main(["table", "info", str(table)])
    assert "procedural" in capsys.readouterr().out
    main(["table", "verify", str(table), "--clips"])
    assert "every shard, the tokenizer, the train clips, the test clips as the manifest says" in " ".join(
        capsys.readouterr().out.split()
    )
    shard = table / "test-00000-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert shard.name in fails("table", "verify", str(table)).replace(" ", "")


def test_train_evaluate_and_roll_out_on_a_table(
    table: Path, tiny_world: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    tiny = ["--path-length", "3", "--scenes", "2", "--group-size", "4", "--decisions", "48", "--held-out-scenes", "2"]
    main(["train", "--table", str(table), *tiny, "--out", str(run)])
    assert json.loads((run / "results.json").read_text())["decisions"] == 48
    world = ["--table", str(table), "--path-length", "3"]
    main(["evaluate", "--agent", str(run), *world, "--scenes", "2", "--out", str(tmp_path / "eval")])
    assert "argmax" in json.loads((tmp_path / "eval" / "results.json").read_text())
    main(["rollout", "--policy", "oracle", *world, "--episodes", "2", "--out", str(tmp_path / "roll")])
    assert len(pd.read_parquet(tmp_path / "roll" / "decisions.parquet")) == 6
    message = fails("evaluate", *world, "--tokenizer", "nano")
    assert "Expected the tokenizer that the outcome table" in message
    message = fails("evaluate", *world, "--clips", "gym:CartPole-v1")
    assert "Expected clips=procedural" in message


def test_another_build_into_the_folder(table: Path, tiny_world: str, fails: Callable[..., str]) -> None:
    message = fails("table", "build", "--tokenizer", tiny_world, "--count", "9", "--out", str(table))
    assert "hold a table of the same build" in message
