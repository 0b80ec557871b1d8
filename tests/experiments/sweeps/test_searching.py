"""Searches by Optuna whose runs are made up: values, draws, and workers that are too late; plans and their judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vaportok_rl.experiments.generation.length_distances import DistanceSettings
from vaportok_rl.experiments.sweeps import running
from vaportok_rl.experiments.sweeps.plan import Search, SweepPlan, _product
from vaportok_rl.experiments.sweeps.running import Row, Worker
from vaportok_rl.experiments.sweeps.searching import open_study, search

SPACE = {
    "kl_coef": {"low": 1e-9, "high": 1.0, "log": True},
    "learning_rate": {"low": 0.1, "high": 0.5, "step": 0.2},
    "path_length": {"low": 2, "high": 8, "step": 3},
    "credit": ["clip", "path"],
}
PLAN = SweepPlan((0, 2), {"decisions": 24}, {"a": {}}, distances=DistanceSettings())


class MadeUp(Worker):
    """Its runs save as much as their seed and path length say."""

    def make(self, variant: str, changes: Mapping[str, Any], seed: int) -> Row:
        return {"variant": variant, "seed": seed, **changes, "saved": changes["path_length"] + seed}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a study's draws depend on its address."""
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def searched(folder: Path, trials: int = 6, direction: Any = "maximize") -> tuple[MadeUp, Any]:
    asked = Search(trials, SPACE, "journal:study.log", direction=direction)
    worker = MadeUp(replace(PLAN, variants={}, search=asked), folder)
    return worker, lambda: open_study(asked, f"vaportok-{worker.plan.identity}")


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_is_worth_the_mean_over_its_seeds(folder: Path, direction: str) -> None:
    worker, study = searched(folder, direction=direction)
    rows = search(worker)
    assert rows is not None
    trials = study().trials
    assert [row["variant"] for row in rows] == [f"trial-{n:03d}" for n in range(6) for _ in range(2)]
    assert [trial.value for trial in trials] == [trial.params["path_length"] + 1 for trial in trials]
    best = (max if direction == "maximize" else min)(trial.value for trial in trials)
    assert study().best_value == best


def test_draws_are_of_the_space_and_of_the_trials_number(folder: Path) -> None:
    worker, study = searched(folder)
    search(worker)
    drawn = [trial.params for trial in study().trials]
    assert len({str(params) for params in drawn}) == 6
    assert {params["path_length"] for params in drawn} <= {2, 5, 8}
    assert {round(params["learning_rate"], 9) for params in drawn} <= {0.1, 0.3, 0.5}
    assert {params["credit"] for params in drawn} == {"clip", "path"}
    assert sum(params["kl_coef"] < 0.01 for params in drawn) >= 2  # on a linear scale hardly any
    (folder / "study.log").unlink()
    search(MadeUp(worker.plan, folder / "elsewhere"))
    assert [trial.params for trial in study().trials] == drawn


def test_a_worker_that_is_too_late_makes_no_further_trial(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, study = searched(folder, trials=1)
    import optuna

    ask = optuna.study.Study.ask

    def overtaken(self: optuna.Study) -> optuna.trial.Trial:
        monkeypatch.setattr(optuna.study.Study, "ask", ask)
        theirs = ask(self)
        theirs.set_user_attr("rows", [{"variant": "theirs"}])
        theirs.set_user_attr("notes", {})
        self.tell(theirs, 1.0)
        return ask(self)

    monkeypatch.setattr(optuna.study.Study, "ask", overtaken)
    assert search(worker) == [{"variant": "theirs"}]
    assert [trial.value for trial in study().trials] == [1.0, None]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": (0, 1)},
        {"base": {"decisions": 36}},
        {"variants": {"b": {}}},
        {"search": Search(1, {"kl_coef": [1]}, "journal:x")},
        {"distances": None},
    ],
)
def test_another_plan_is_another_study(change: dict[str, Any]) -> None:
    assert replace(PLAN).identity == PLAN.identity
    assert replace(PLAN, **change).identity != PLAN.identity


def test_changes_win_over_what_all_runs_share() -> None:
    plan = replace(PLAN, base={"decisions": 24, "kl_coef": 0.5, "seed": 9})
    settings = plan.settings({"kl_coef": 0.25}, 2)
    assert (settings.kl_coef, settings.decisions, settings.seed) == (0.25, 24, 2)


def test_the_grid_wins_over_a_variant_that_names_its_setting() -> None:
    found = _product({"a": {"kl_coef": 1, "n_epochs": 2}}, {"kl_coef": [3, 4]})
    assert found == {f"a kl_coef={value}": {"kl_coef": value, "n_epochs": 2} for value in (3, 4)}


def test_runs_share_held_out_scenes_unless_clips_or_scenes_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TaildropProcess", lambda **_: None)
    monkeypatch.setattr(running, "HeldOut", lambda process, scenes: SimpleNamespace(scenes=scenes))
    worker = Worker(replace(PLAN, distances=None), tmp_path)
    judged = {
        name: worker._judge(worker.plan.settings(changes, 0))[0]
        for name, changes in {
            "first": {},
            "policy": {"kl_coef": 0.5},
            "reward": {"reward.scale": 3.0},
            "scenes": {"held_out_scenes": 5},
            "clips": {"clips": "streams"},
        }.items()
    }
    assert judged["first"] is judged["policy"] is judged["reward"]
    assert len({id(found) for found in judged.values()}) == 3
    assert judged["scenes"].scenes == 5
