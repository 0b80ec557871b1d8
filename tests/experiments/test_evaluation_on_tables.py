"""Evaluation on an outcome table: every policy, and nothing decoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vaportok_rl.agents import HeldOut
from vaportok_rl.cli.main import main
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.experiments.runs.training import TrainSettings, open_held_out
from vaportok_rl.tokenizer import VaporTok


@pytest.fixture(scope="module")
def table(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    TableBuilder(plan_table(tokenizer=tiny_world, count=18, held_out=9, grid=1), folder).run()
    return str(folder)


def test_the_same_figures_as_with_the_network(table: str, tiny_world: str) -> None:
    looked_up = HeldOut(TaildropProcess(table=table, path_length=3, split="test"), scenes=3)
    rows = looked_up.scene.indices
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    every = process.engine.score_all(process.engine.open(rows.numpy()))
    assert torch.allclose(looked_up.every.mse, every.mse, atol=1e-6)
    assert torch.allclose(looked_up.every.accuracy, every.accuracy, atol=1e-6)
    lengths = torch.tensor([[1, 5, 16], [2, 2, 9], [16, 1, 3]])
    expected = process.reward(every.take(lengths[None])).total
    assert torch.allclose(looked_up.evaluate(lengths).rewards.total, expected, atol=1e-4)


def test_all_policies_without_decoding(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaportok_rl.agents.lengths.router.ROUTER_SCENES", 5)
    monkeypatch.setattr(VaporTok, "decode", None)
    out = tmp_path / "out"
    options = ["--table", table, "--path-length", "3", "--lpips", "none", "--reward.preset", "rate-distortion"]
    main(["evaluate", *options, "--baselines", "all", "--policies", "budget:4", "oracle", "--out", str(out)])
    results = json.loads((out / "results.json").read_text())
    assert results["clips"] == 9
    names = [name for name, entry in results.items() if isinstance(entry, dict) and "reward" in entry]
    assert {"router", "budget:4", "complexity-affine", "loss-proportional", "best_fixed", "oracle"} < set(names)
    assert results["oracle"]["reward"] == max(results[name]["reward"] for name in names)


def test_train_holds_out_the_clips_of_another_table(table: str, tiny_world: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    plan = plan_table(tokenizer=tiny_world, clip_seed=1, count=0, held_out=6, grid=1)
    TableBuilder(plan, other).run()
    settings = TrainSettings(table=table, held_out_table=str(other), path_length=3, held_out_scenes=2)
    held_out = open_held_out(settings)
    direct = HeldOut(TaildropProcess(table=str(other), path_length=3, split="test"), scenes=2)
    assert torch.equal(held_out.every.mse, direct.every.mse)
    assert settings.environment("train")["table"] == table
