"""Leave-one-out on an outcome table: files, resuming, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from vaportok_rl.agents import HeldOut
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.evaluation.equal_tokens import EqualTokens
from vaportok_rl.experiments import ablate_rewards
from vaportok_rl.experiments.ablate_rewards import VARIANTS, Ablation, by_seed, main, summary
from vaportok_rl.experiments.runs.world_settings import RewardSettings


@pytest.fixture(scope="module")
def brief(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    TableBuilder(plan_table(tokenizer=tiny_world, count=18, held_out=9, grid=1), folder).run()
    sizes = {"path_length": 2, "decisions": 8, "scenes": 2, "group_size": 2, "held_out_scenes": 3, "seeds": (0,)}
    return {**sizes, "table": str(folder), "reward": RewardSettings(preset="paper")}


def test_a_study_is_written_and_goes_on(brief: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Ablation(**brief, variants=VARIANTS[:2])
    main(tmp_path, settings)
    rows = pd.read_csv(tmp_path / "ablation.csv")
    columns = ["variant", "seed", "tokens", "mse", "psnr", "accuracy", "reward", "saved", "saved_share"]
    assert list(rows.columns) == columns
    assert list(zip(rows["variant"], rows["seed"], strict=True)) == [("full", 0), ("without-efficiency", 0)]
    page = (tmp_path / "ablation.md").read_text()
    assert all(row in page for row in ("| full |", "| without `efficiency` |"))

    (tmp_path / "runs" / "full-0.json").unlink()
    asked = []
    trained = ablate_rewards.trained_lengths
    monkeypatch.setattr(ablate_rewards, "trained_lengths", lambda *given: asked.append(given[1:3]) or trained(*given))
    main(tmp_path, settings)
    assert asked == [("full", 0)]
    assert pd.read_csv(tmp_path / "ablation.csv").equals(rows)
    with pytest.raises(ValueError, match="another reward, decisions; choose another folder"):
        main(tmp_path, Ablation(**brief | {"decisions": 16, "reward": RewardSettings()}))


def test_a_variant_leaves_its_term_out(brief: dict[str, Any]) -> None:
    weights = {variant: Ablation(**brief).arguments("train", variant)["reward"].weights for variant in VARIANTS}
    assert set(weights["full"].values()) == {1.0}
    for variant in VARIANTS[1:]:
        assert [name for name, weight in weights[variant].items() if not weight] == [variant.removeprefix("without-")]


@pytest.mark.parametrize("variants", [("full", "without-accuracy"), ("without-penalty",)])
def test_variants_that_cannot_be_compared(variants: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=variants[-1]):
        Ablation(variants=variants)


def test_the_tables_by_hand(brief: dict[str, Any]) -> None:
    held_out = HeldOut(TaildropProcess(**Ablation(**brief).arguments("test")), 3)
    short, long = (held_out.evaluate(torch.full((3, 2), n)) for n in (4, 7))
    curves = EqualTokens(held_out.every.mse.double().numpy())
    # Full keeps 4 tokens in one run and 7 in the other; without the penalty it is 4 in both. Seeds are drawn anew too.
    scores = {"full": [short, long], "without-penalty": [short, short]}
    rows = by_seed(scores, (0, 1), curves)
    assert rows["tokens"].tolist() == [4, 7, 4, 4]
    assert rows["saved"].tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert rows["mse"][1] == pytest.approx(held_out.every.mse[6].mean().item())
    full, without = summary(scores, rows, curves).splitlines()[2:]
    assert full.startswith("| full | 299 | 5.5 [4.0, 7.0] |  |")
    assert without.startswith("| without `penalty` | 58 | 4.0 [4.0, 4.0] | -1.50 [-3.00, +0.00] |")
