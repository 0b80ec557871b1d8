"""GRPO and full information: curves, medians over seeds, and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.experiments import learnable
from vaportok_rl.experiments.learnable import FROM_FRESH, LearnableSettings, describe, learnable_gap, main
from vaportok_rl.experiments.learning_curves import (
    LearningCurve,
    gap_table,
    load_curves,
    mean_over_folds,
    save_curve,
    summary,
)
from vaportok_rl.experiments.run_folder import plain
from vaportok_rl.runtime.held_folders import LOCK_FILE


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


def curve(method: str, seed: int, held_out: float, start: str = "pretrained") -> LearningCurve:
    training = (0.0, 0.4, 0.5)
    share = tuple(np.linspace(0, 1, len(training)).tolist())
    figures = {"gap_closed": held_out, "tokens": 3.0, "spearman_complexity": 0.5, "saved": 0.125}
    return LearningCurve(method, start, seed, share, training, training, figures, 2.0)  # type: ignore[arg-type]


def test_medians_and_the_share_of_the_learnable_gap() -> None:
    curves = [curve("grpo", seed, gap) for seed, gap in enumerate((0.2, 0.45, 0.9))]
    curves += [curve("enumerated", seed, gap) for seed, gap in enumerate((0.5, 0.4, 0.6))]
    curves += [curve("router", seed, gap) for seed, gap in enumerate((0.3, 0.31, 0.1))]
    curves += [curve("grpo", 0, 0.4, "fresh"), curve("enumerated", 0, 0.48, "fresh")]
    found = summary(curves)
    assert found["learnable_gap"] == 0.5
    assert found["grpo_share_of_learnable"] == pytest.approx({"pretrained": 0.9, "fresh": 0.8})
    assert found["runs"]["pretrained"]["router"]["held_out_gap_closed"] == 0.3
    table = gap_table(curves)
    assert "| pretrained | grpo | 45.0 % | 20.0 / 45.0 / 90.0 | 50.0 % | +12.5 % | 0.50 | 3.0 |" in table
    assert table.endswith("Learnable part of the gap: 50.0 %. GRPO reaches 90 % (pretrained), 80 % (fresh) of it.")
    assert curves[0].late_rise == pytest.approx(0.05)


def test_means_over_folds() -> None:
    folds = [curve("grpo", 3, gap) for gap in (0.3, 0.6, 0.0)]
    found = mean_over_folds([replace(one, seconds=float(place)) for place, one in enumerate(folds)])
    assert found.figures == pytest.approx({**folds[0].figures, "gap_closed": 0.3})
    assert (found.folds, found.seconds, found.seed) == ((0.3, 0.6, 0.0), 1.0, 3)
    assert found.training == pytest.approx(folds[0].training)
    table = gap_table([found, replace(found, seed=4, folds=(0.5, 0.8, 0.2))])
    assert "| by seed | by fold | on training clips |" in table
    assert "| 30.0 / 30.0 | 40.0 / 70.0 / 10.0 | 50.0 % |" in table
    assert mean_over_folds(folds[:1]) is folds[0]


def test_every_method_is_followed_on_training_and_held_out_clips(tiny_world: str) -> None:
    seen: list[LearningCurve] = []
    curves = learnable_gap(settings(tiny_world), seen.append)
    assert curves == seen
    assert [(found.start, found.method) for found in curves] == [
        (start, method) for start in ("pretrained", "fresh") for method in ("grpo", "enumerated", "router")
    ]
    for found in curves:
        assert found.share[0] == 0
        assert found.share[-1] == 1
        assert list(found.share) == sorted(found.share)
        assert len(found.share) == len(found.training) == len(found.held_out) >= 3
    # All of one start begin alike, and what is reported is where GRPO and the enumerated gradient end.
    for some in (curves[:3], curves[3:]):
        assert len({found.held_out[0] for found in some}) == len({found.training[0] for found in some}) == 1
    for found in (*curves[:2], *curves[3:5]):
        assert found.figures["gap_closed"] == pytest.approx(found.held_out[-1], abs=1e-6)


def test_what_the_methods_are_given() -> None:
    some = LearnableSettings()
    assert some.options("grpo", "fresh")["batch_size"] == FROM_FRESH.batch_size
    given = some.options("enumerated", "pretrained")
    assert (given["gradient"], given["kl_coef"]) == ("enumerated", 0.0)


def test_what_departs_from_the_defaults_is_said() -> None:
    assert describe(GRPOOptions()) == "the defaults"
    assert describe(GRPOOptions(kl_coef=0.0, batch_size=2)) == "`--batch-size 2` `--kl-coef 0.0`"


def test_the_folder(tiny_world: str, tmp_path: Path) -> None:
    once = replace(settings(tiny_world), starts=("fresh",))
    main(tmp_path / "out", once, "page")
    assert (tmp_path / "out" / "images" / "page.png").is_file()
    assert "![Gap closed during training](images/page.png)" in (tmp_path / "out" / "page.md").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.yaml",
        "results.json",
        "runs.csv",
        "images",
        "page.md",
        "curves",
        LOCK_FILE,
    }
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["runs"]["fresh"]) == {"grpo", "enumerated", "router"}
    assert len(results["curves"]) == 3
    assert plain(results) == results
    rows = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert {"variant", "seed", "tokens", "mse", "psnr", "accuracy", "reward", "gap_closed"} <= set(rows.columns)


def test_an_interrupted_run_goes_on_with_the_runs_that_are_missing(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = replace(settings(tiny_world), starts=("fresh",))
    main(tmp_path / "whole", once)
    whole = {path.name: path.read_text() for path in (tmp_path / "whole" / "curves").iterdir()}
    assert set(whole) == {"fresh-grpo-0.json", "fresh-enumerated-0.json", "fresh-router-0.json"}

    def interrupted(*given: object) -> LearningCurve:
        if given[1] == "router":
            raise KeyboardInterrupt
        return learn(*given)  # type: ignore[arg-type]

    learn = learnable.learn
    monkeypatch.setattr(learnable, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(tmp_path / "parts", once)
    trained: list[object] = []
    monkeypatch.setattr(learnable, "learn", lambda *given: trained.append(given[1]) or learn(*given))
    main(tmp_path / "parts", once)
    assert trained == ["router"]
    both = [json.loads((tmp_path / name / "results.json").read_text())["curves"] for name in ("whole", "parts")]
    for curves in both:
        for found in curves:
            del found["seconds"]
    assert both[0] == both[1]

    with pytest.raises(ValueError, match=r"Expected the settings that .* was begun with, got other values for points"):
        main(tmp_path / "parts", replace(once, points=3))


def test_a_curve_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = replace(curve("router", 2, 0.25), figures={"gap_closed": 0.1, "spearman_complexity": float("nan")})
    save_curve(tmp_path / "curves", one)
    (read,) = load_curves(tmp_path / "curves")
    assert np.isnan(read.figures.pop("spearman_complexity"))
    assert read == replace(one, figures={"gap_closed": 0.1})
    assert load_curves(tmp_path / "nowhere") == []
