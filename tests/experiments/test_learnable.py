"""GRPO beside full information: curves, medians over seeds, and the folder they leave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vaportok_rl.experiments.learnable import LearnableSettings, LearningCurve, learnable_gap, main, summary
from vaportok_rl.experiments.run_folder import plain


def settings(world: str) -> LearnableSettings:
    return LearnableSettings(
        tokenizer=world,
        path_length=3,
        decisions=96,
        scenes=2,
        group_size=4,
        epochs=2,
        training_scenes=5,
        held_out_scenes=3,
        points=2,
        seeds=(0,),
    )


def curve(method: str, seed: int, held_out: float, training: tuple[float, ...] = (0.0, 0.4, 0.5)) -> LearningCurve:
    share = tuple(np.linspace(0, 1, len(training)).tolist())
    return LearningCurve(method, seed, share, training, training, {"gap_closed": held_out}, 2.0)  # type: ignore[arg-type]


def test_medians_and_the_share_of_the_learnable_gap() -> None:
    curves = [curve("grpo", seed, gap) for seed, gap in enumerate((0.2, 0.45, 0.9))]
    curves += [curve("enumerated", seed, gap) for seed, gap in enumerate((0.5, 0.4, 0.6))]
    curves += [curve("router", seed, gap) for seed, gap in enumerate((0.3, 0.31, 0.1))]
    found = summary(curves)
    assert found["learnable_gap"] == 0.5
    assert found["grpo_share_of_learnable"] == pytest.approx(0.9)
    assert found["methods"]["router"]["held_out_gap_closed"] == 0.3
    assert curves[0].late_rise == pytest.approx(0.05)


def test_every_method_is_followed_on_training_and_held_out_clips(tiny_world: str) -> None:
    seen: list[LearningCurve] = []
    curves = learnable_gap(settings(tiny_world), seen.append)
    assert curves == seen
    assert [found.method for found in curves] == ["grpo", "enumerated", "router"]
    for found in curves:
        assert found.share[0] == 0
        assert found.share[-1] == 1
        assert list(found.share) == sorted(found.share)
        assert len(found.share) == len(found.training) == len(found.held_out) >= 3
    # All begin with the pretrained module, and what is reported is where GRPO and the enumerated gradient end.
    assert len({found.held_out[0] for found in curves}) == len({found.training[0] for found in curves}) == 1
    for found in curves[:2]:
        assert found.figures["gap_closed"] == pytest.approx(found.held_out[-1], abs=1e-6)


def test_the_folder(tiny_world: str, tmp_path: Path) -> None:
    main(settings(tiny_world), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.yaml",
        "results.json",
        "runs.csv",
        "learnable.png",
    }
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["methods"]) == {"grpo", "enumerated", "router"}
    assert len(results["curves"]) == 3
    assert plain(results) == results
    rows = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert {"variant", "seed", "tokens", "mse", "psnr", "accuracy", "reward", "gap_closed"} <= set(rows.columns)
