"""The comparison of optimisers on a tiny world: files, reproducibility, resuming and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from vaportok_rl.agents import HeldOut
from vaportok_rl.agents.agent_file import AGENT_FILE
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.experiments.optimisers import (
    CSV_FILE,
    FIGURE_FILE,
    PAGE_FILE,
    Optimisers,
    differences_table,
    ends_table,
    main,
    optimisers_figure,
    run_all,
    times_table,
)
from vaportok_rl.experiments.runs.algorithms import PPOSettings
from vaportok_rl.experiments.runs.training import open_held_out

SILENT = Console(quiet=True)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs: they would be most of the time, and `test_training` looks at them."""
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.add_clip", lambda *_: None)


@pytest.fixture
def settings(tiny_world: str) -> Optimisers:
    return Optimisers(
        tokenizer=tiny_world,
        path_length=2,
        scenes=2,
        group_size=2,
        held_out_scenes=2,
        decisions=16,
        seeds=(0, 1),
        variants=("grpo", "ppo"),
    )


@pytest.fixture
def held_out(settings: Optimisers) -> HeldOut:
    return open_held_out(settings.run_settings("grpo", 0))


def test_settings_reach_their_variant(settings: Optimisers) -> None:
    changed = replace(settings, grpo=GRPOOptions(kl_coef=0.5), ppo=PPOSettings(vf_coef=0.125), pretrained=False)
    own, path, exact, fixed, ppo = (
        changed.run_settings(variant, 3) for variant in ("grpo", "grpo-path", "enumerated", "candidates", "ppo")
    )
    assert (own.algo, own.credit, own.kl_coef, own.seed) == ("grpo", None, 0.5, 3)
    assert path == replace(own, credit="path")
    assert exact == replace(own, gradient="enumerated")
    assert fixed == replace(own, gradient="candidates")
    assert (ppo.algo, ppo.ppo.vf_coef, ppo.decisions, ppo.pretrained) == ("ppo", 0.125, 16, False)
    for run in (own, path, exact, fixed, ppo):
        run.check()


def test_a_comparison_writes_its_files_and_is_not_repeated(settings: Optimisers, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(out, settings)
    rows = pd.read_csv(out / CSV_FILE)
    assert {"variant", "seed", "decisions", "seconds", "reward", "gap_closed", "tokens", "mse", "psnr"} <= set(rows)
    assert list(rows.groupby(["variant", "seed"]).size()) == [2] * 4
    assert set(rows["decisions"]) == {0, 16}
    start = rows[rows["decisions"] == 0]
    assert (start["seconds"] == 0).all()
    assert start["reward"].nunique() == 1  # the same module on the same clips
    assert (rows[rows["decisions"] == 16]["seconds"] > 0).all()
    page = (out / PAGE_FILE).read_text()
    for variant in settings.variants:
        assert f"| {variant} |" in page
    assert f"images/{FIGURE_FILE}" in page
    assert (out / "images" / FIGURE_FILE).stat().st_size > 5000
    agents = {path: path.stat().st_mtime_ns for path in out.glob(f"*/{AGENT_FILE}")}
    assert len(agents) == 4
    main(out, settings)
    assert {path: path.stat().st_mtime_ns for path in agents} == agents
    pd.testing.assert_frame_equal(pd.read_csv(out / CSV_FILE), rows)


def test_an_interrupted_comparison_goes_on(
    settings: Optimisers, held_out: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, variants=("ppo",), seeds=(0,), decisions=32)
    whole = run_all(settings, tmp_path / "whole", held_out, SILENT)
    assert whole is not None
    import vaportok_rl.experiments.optimisers as module

    learn = module.learn

    def interrupted(*arguments: object) -> object:
        def stop(decisions: int, live: dict[str, float]) -> None:
            raise KeyboardInterrupt

        run, folder, scenes, _, resume = arguments
        return learn(run, folder, scenes, stop, resume)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "learn", interrupted)
    assert run_all(settings, tmp_path / "parts", held_out, SILENT) is None
    monkeypatch.setattr(module, "learn", learn)
    parts = run_all(settings, tmp_path / "parts", held_out, SILENT)
    assert parts is not None
    pd.testing.assert_frame_equal(parts.drop(columns="seconds"), whole.drop(columns="seconds"))


def test_runs_of_other_settings_are_not_mixed_in(settings: Optimisers, held_out: HeldOut, tmp_path: Path) -> None:
    settings = replace(settings, variants=("ppo",), seeds=(0,))
    run_all(settings, tmp_path, held_out, SILENT)
    with pytest.raises(ValueError, match="other values for ppo"):
        run_all(replace(settings, ppo=PPOSettings(n_epochs=1)), tmp_path, held_out, SILENT)


def test_the_table_and_its_reading() -> None:
    rows = pd.DataFrame(
        [
            {"variant": variant, "seed": seed, "decisions": decisions, "seconds": slow * decisions / 100}
            | {"gap_closed": best * decisions / 1000 + seed / 100, "reward": 1.0, "tokens": 20.0, "saved": saved}
            for variant, slow, best, saved in (("grpo", 1, 0.6, 0.05), ("ppo", 8, 0.4, 0.02))
            for seed in (0, 1, 2)
            for decisions in (0, 500, 1000)
        ]
    )
    grpo, ppo = ends_table(rows).splitlines()[2:]
    assert grpo == "| grpo | 20.0 | 5.0 % [5.0, 5.0] | 61.0 % [60.0, 62.0] | 1.0000 |"
    assert ppo == "| ppo | 20.0 | 2.0 % [2.0, 2.0] | 41.0 % [40.0, 42.0] | 1.0000 |"
    assert times_table(rows).splitlines()[2:] == ["| grpo | 10 | 100 |", "| ppo | 80 | 12 |"]
    (difference,) = differences_table(rows).splitlines()[2:]
    assert difference == "| ppo | +3.0 % [+3.0, +3.0] | +20.0 % [+20.0, +20.0] | 149 % |"
    figure = optimisers_figure(rows)
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), [2, 2, 2])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1, 31, 61])
