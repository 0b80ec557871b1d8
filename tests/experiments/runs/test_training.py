from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaportok_rl.agents.agent_file import AGENT_FILE, ARCHIVE_FILE
from vaportok_rl.experiments.run_folder import create_run_folder
from vaportok_rl.experiments.runs.training import TrainedRun, TrainSettings, open_held_out, train

_FILES = {
    "config.yaml",
    "results.json",
    "table.csv",
    "table.md",
    AGENT_FILE,
    ARCHIVE_FILE,
    "allocation.png",
    "rate_distortion.png",
    "reward_curves.png",
    "reconstructions.png",
    "reconstructions.mp4",
}


def _settings(world: str, **changes: object) -> TrainSettings:
    values = {
        "tokenizer": world,
        "decisions": 96,
        "path_length": 3,
        "scenes": 4,
        "group_size": 4,
        "held_out_scenes": 3,
        "seed": 3,
    }
    return TrainSettings(**{**values, **changes})  # type: ignore[arg-type]


def _run(settings: TrainSettings, folder: Path) -> TrainedRun:
    return train(settings, create_run_folder(folder, "x", folder / "run"), open_held_out(settings))


@pytest.fixture(scope="module")
def finished(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return _run(_settings(tiny_world), tmp_path_factory.mktemp("train"))


def test_a_run_leaves_everything_behind(finished: TrainedRun) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= _FILES
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not finished.interrupted


def test_results_have_the_promised_names(finished: TrainedRun) -> None:
    results = json.loads((finished.folder / "results.json").read_text())
    for policy in ("trained", "pretrained", "best_fixed", "oracle", "random", "complexity"):
        assert {"tokens", "mse", "psnr", "accuracy", "reward", "saved", "saved_share"} <= set(results[policy])
        low, high = results["intervals"][policy]["saved"]
        assert low - 1e-6 <= results[policy]["saved"] <= high + 1e-6
    assert {"gap_closed", "headroom", "spearman_complexity", "saved_share", "explained_variance"} <= set(results)
    assert results["saved"] == results["trained"]["saved"] == results["curves"]["saved"][-1][1]
    assert results["oracle"]["reward"] >= max(results[name]["reward"] for name in ("trained", "best_fixed"))
    gap = (results["trained"]["reward"] - results["best_fixed"]["reward"]) / results["headroom"]
    assert results["gap_closed"] == pytest.approx(gap, abs=1e-5)
    assert results["decisions"] == 96


def test_the_configuration_reads_back(finished: TrainedRun, tiny_world: str) -> None:
    content = yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert content["tokenizer"] == tiny_world
    assert content["group_size"] == 4
    assert content["reward_resolved"]["weights"]["efficiency"] == 1.0


def test_tensorboard_has_terms_lengths_and_pictures(finished: TrainedRun) -> None:
    events = EventAccumulator(str(finished.folder))
    events.Reload()
    tags = events.Tags()
    wanted = {"rewards/efficiency/mean", "rewards/total/mean", "lengths/mean_tokens", "train/entropy", "train/kl"}
    wanted |= {"train/clip_fraction", "held_out/reward", "rollout/ep_rew_mean"}
    assert wanted <= set(tags["scalars"])
    assert "lengths/histogram" in tags["histograms"]
    assert "reconstructions" in tags["images"]


def test_the_same_seed_trains_the_same_policy(finished: TrainedRun, tiny_world: str, tmp_path: Path) -> None:
    again = _run(_settings(tiny_world), tmp_path)
    first, second = ((run.folder / "results.json").read_bytes() for run in (finished, again))
    assert first == second


def test_an_interrupted_run_keeps_what_was_learnt(tiny_world: str, tmp_path: Path) -> None:
    settings = _settings(tiny_world, decisions=10_000)

    def stop(decisions: int, live: dict[str, float]) -> None:
        if decisions >= 96:
            raise KeyboardInterrupt

    run = train(settings, create_run_folder(tmp_path, "x"), open_held_out(settings), stop)
    assert run.interrupted
    assert {path.name for path in run.folder.iterdir()} >= _FILES
    assert json.loads((run.folder / "results.json").read_text())["interrupted"] is True


@pytest.mark.parametrize(
    "given",
    [
        *("--max-grad-norm 0", "--max-grad-norm -1", "--kl-coef -1", "--target-kl nan", "--decisions 0", "--seed -1"),
        *("--algo ppo --ppo.clip-range -1", "--algo ppo --ppo.gae-lambda 5", "--algo a2c --a2c.max-grad-norm 0"),
        *("--reward.weights diversity 1e308", "--reward.weights diversity 0:1e308@1:2", "--reward.scale nan"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_made(
    given: str, fails: Callable[..., str], tmp_path: Path
) -> None:
    message = fails("train", *given.split(), "--out", str(tmp_path / "run"))
    assert message.startswith("error: Expected")
    assert not (tmp_path / "run").exists()
