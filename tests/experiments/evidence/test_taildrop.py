"""The study of taildrop strategies on tokenizers that train in a second, and its intervals against loops."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

pytest.importorskip("transformers")

from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance, resampled_frechet
from vaportok_rl.evaluation.feature_networks import open_feature_network
from vaportok_rl.experiments.evidence import taildrop
from vaportok_rl.experiments.evidence.taildrop import (
    Logarithms,
    Taildrop,
    claims_table,
    run,
    world_folder,
)
from vaportok_rl.generation import CodeSequences, GeneratorSizes, GeneratorTrainer, GeneratorTraining
from vaportok_rl.tokenizer import PRESETS, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig

QUIET = Console(quiet=True)
SETTINGS = Taildrop(
    preset="tiny",
    worlds=("none", "sample"),
    count=72,
    resamples=10,
    sequences=32,
    workers=0,
    pretraining=PretrainConfig(
        steps=4,
        batch_size=4,
        precision="float32",
        continuous_until=0.25,
        quantized_from=0.5,
        random_lengths_from=0.5,
        length_mixture=(1, 0, 0),
        calibration_clips=16,
        codebook_clips=8,
    ),
    sizes=GeneratorSizes(width=16, layers=1, heads=2),
    generator=GeneratorTraining(steps=3, batch_size=8, save_every=1),
)


@pytest.fixture(autouse=True)
def tiny_preset(tiny_config: VaporTokConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)


def test_the_study_goes_on_where_it_was_interrupted_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", SETTINGS, QUIET)
    step, stopped = GeneratorTrainer.train_step, []

    def interrupted(trainer: GeneratorTrainer) -> dict[str, float]:
        if trainer.step == 2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(GeneratorTrainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", SETTINGS, QUIET)
    run(tmp_path / "cut", SETTINGS, QUIET)
    whole, cut = (pd.read_csv(tmp_path / name / "taildrop.csv") for name in ("whole", "cut"))
    pd.testing.assert_frame_equal(whole.drop(columns="hours"), cut.drop(columns="hours"))
    assert whole["world"].tolist() == ["none", "sample"]
    assert (whole["ratio"] == whole["gfvd"] / whole["rfvd"]).all()
    assert (whole["autoregression"] > 0).all()
    page = (tmp_path / "cut" / "taildrop.md").read_text()
    assert f"{whole['psnr'][0]:.2f}" in page
    assert f"| {whole['rfvd'][0]:.3g} [" in page
    assert f"| {whole['ratio'][0]:.3f} [" in page
    assert "2.85" in page
    assert (tmp_path / "cut" / "taildrop.png").stat().st_size > 5000
    # `none` sees all tokens in training and writes all; `sample` keeps its argmax.
    assert whole["tokens"][0] == 8
    state = torch.load(world_folder(tmp_path / "cut", "none", 0) / "training_state.pt", weights_only=True)
    assert tuple(state["config"]["length_mixture"]) == (0, 0, 1)
    learnt = CodeSequences.load(world_folder(tmp_path / "cut", "sample", 0) / "generator" / "sequences.safetensors")
    assert len(learnt) == 32
    # A finished study is neither trained nor measured again.
    monkeypatch.setattr(taildrop, "measure_generation", None)
    run(tmp_path / "cut", SETTINGS, QUIET)
    assert (tmp_path / "cut" / "taildrop.md").read_text() == page
    with pytest.raises(ValueError, match="other values for steps"):
        run(tmp_path / "cut", replace(SETTINGS, pretraining=replace(SETTINGS.pretraining, steps=5)), QUIET)


def test_a_world_that_another_process_trains_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(folder: Path) -> None:
        raise FileExistsError(folder)

    monkeypatch.setattr(taildrop, "hold_run_folder", held)
    run(tmp_path, SETTINGS, QUIET)
    assert not (tmp_path / "taildrop.md").exists()


def runs(rfvd: float, gfvd: float, spread: float, seeds: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(round(100 * gfvd))
    return [
        {
            "rfvd": rfvd * (1 + 0.1 * seed),
            "gfvd": gfvd,
            "autoregression": 0.5 * gfvd,
            "logs": (np.log([1.3 * rfvd, 1.2 * gfvd, 0.6 * gfvd]) + rng.normal(0, spread, (400, 3))).tolist(),
        }
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_are_of_resampled_seeds_and_clips(seeds: int) -> None:
    own = runs(2.0, 5.0, 0.05, seeds)
    value, low, high = Logarithms.of(own).factor("gFVD / rFVD")
    ratios = [run["gfvd"] / run["rfvd"] for run in own]
    assert value == pytest.approx(np.prod(ratios) ** (1 / seeds))
    rng, drawn = np.random.default_rng(7), []
    for _ in range(4000):
        parts, place = [], rng.integers(0, 400)
        for seed in rng.integers(0, seeds, seeds):
            logs = np.array(own[seed]["logs"])[:, :2]
            centred = logs - logs.mean(0) + np.log([own[seed]["rfvd"], own[seed]["gfvd"]])
            parts.append(centred[place, 1] - centred[place, 0])
        drawn.append(np.mean(parts))
    error = 1.96 * np.std(drawn)
    assert np.log([low, high]) == pytest.approx([np.log(value) - error, np.log(value) + error], abs=0.1 * error)
    assert Logarithms.of(own).factor("generated to reconstructed")[0] == pytest.approx(2.5)


def test_a_claim_holds_only_beyond_its_interval() -> None:
    logs = {
        world: Logarithms.of(runs(1.0, gfvd, 0.02, 1))
        for world, gfvd in (("none", 3.0), ("naive", 2.0), ("argmax", 2.0), ("sample", 2.02), ("pre-sample", 4.0))
    }
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in claims_table(logs).splitlines()[2:]]
    assert dict(rows) == {
        "gFVD / rFVD: none > naive": "holds",
        "gFVD / rFVD: argmax > sample": "undecided",
        "gFVD / rFVD: sample > pre-sample": "does not hold",
        "generated to reconstructed: none > naive": "holds",
        "generated to reconstructed: argmax > sample": "undecided",
        "generated to reconstructed: sample > pre-sample": "does not hold",
        "rFVD: naive > none": "undecided",
        "rFVD: naive > sample": "undecided",
    }


def test_distances_and_their_resamples_are_of_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(SETTINGS, worlds=("sample",))
    run(tmp_path, one, QUIET)
    folder, network = world_folder(tmp_path, "sample", 0), open_feature_network()
    known = taildrop.measure_world(one, folder, network, 0)
    features: dict[str, list[torch.Tensor]] = defaultdict(list)
    measure = taildrop.measure_generation

    def noted(*given: Any, on_features: Any, **more: Any) -> Any:
        def both(name: str, part: torch.Tensor) -> None:
            features[name].append(part)
            on_features(name, part)

        return measure(*given, on_features=both, **more)

    monkeypatch.setattr(taildrop, "measure_generation", noted)
    (folder / "measured.json").unlink()
    assert taildrop.measure_world(one, folder, network, 0)["logs"] == known["logs"]
    real, again, generated = (torch.cat(features[name]) for name in ("real", "reconstructed", "generated"))
    wanted = frechet_distance(FeatureStatistics.of(again), FeatureStatistics.of(generated))
    assert known["autoregression"] == pytest.approx(wanted)
    assert known["autoregression"] != pytest.approx(known["gfvd"], rel=1e-3)
    columns = [(real, again), (real, generated), (again, generated)]
    drawn = np.hstack([resampled_frechet(first, (second,), one.resamples, 0) for first, second in columns])
    assert known["logs"] == pytest.approx(np.log(drawn))
    # What was measured by another feature network, or less, is measured again.
    monkeypatch.setattr(taildrop, "measure_generation", None)
    with pytest.raises(TypeError):
        taildrop.measure_world(one, folder, replace(network, sha256="0" * 64), 0)
    monkeypatch.setattr(taildrop, "MEASURED", {**taildrop.MEASURED, "one more": "more"})
    with pytest.raises(TypeError):
        taildrop.measure_world(one, folder, network, 0)


def test_the_picture_shows_each_distance_and_their_ratio() -> None:
    curve = {"lengths": [1, 2], "psnr_by_length": [10.0, 20.0], "tokens": 2.0, "psnr": 20.0}
    gfvd = {"none": 3.0, "naive": 4.0}
    own = {world: [{**one, **curve} for one in runs(2.0, value, 0.5, 1)] for world, value in gfvd.items()}
    logs = {world: Logarithms.of(some) for world, some in own.items()}
    levels, added, quotients, _ = taildrop.figure(own, logs).axes
    shown = [[one.lines[0].get_ydata().tolist() for one in axis.containers] for axis in (levels, added, quotients)]
    assert np.concatenate(shown) == pytest.approx(np.array([[2, 2], [3, 4], [1.5, 2], [1.5, 2]]))
    ends = [line[:, 1] for line in quotients.containers[0].lines[2][0].get_segments()]
    assert ends == [pytest.approx(logs[world].factor("gFVD / rFVD")[1:]) for world in own]
    first, second = (one.lines[0].get_xdata() for one in levels.containers)
    assert (first < second).all()
    assert quotients.containers[0].lines[0].get_xdata().tolist() == [0, 1]
    assert quotients.get_ylabel() == "gFVD / rFVD"
    assert [text.get_text() for text in levels.get_legend().get_texts()] == ["rFVD", "gFVD"]


def test_distances_have_three_digits_and_quotients_three_decimals() -> None:
    own = {"none": runs(820.4, 827.8, 0.001, 1), "naive": runs(845.2, 845.2, 0.001, 1)}
    own = {world: [{**one, "tokens": 64.0, "psnr": 19.0} for one in some] for world, some in own.items()}
    logs = {world: Logarithms.of(some) for world, some in own.items()}
    table = taildrop.worlds_table(own, logs)
    assert "| 820 [" in table
    assert "| 1.009 [" in table
    assert "| holds | 1.009 [" in claims_table(logs)
