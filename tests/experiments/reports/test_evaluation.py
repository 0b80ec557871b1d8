"""An evaluation: metrics, intervals, several runs of one algorithm, and its folder."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy, fixed_lengths, random_lengths
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.reports.evaluation import AgentRun, Evaluation, evaluate
from vaportok_rl.experiments.reports.plots import allocation_figure, rate_distortion_figure, reward_curves_figure


def shortish(limit: int) -> LengthPolicy:
    return lambda scene, generator: LengthChoice.certain(random_lengths(scene, generator).n_tokens.clamp(max=limit))


def agent_folder(folder: Path) -> str:
    """A run folder with a stub of GRPO's agent file."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "agent.zip", "w") as archive:
        archive.writestr("reference_policy.pth", str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[AgentRun, ...]:
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        folder = root / f"run{seed}"
        agent_folder(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 7 + seed}))
        curves = {"training": [[8, 0.1], [16, 0.2]], "held_out": [[0, 0.1], [16, 0.3]], "tokens": [[8, 5.0]]}
        (folder / "results.json").write_text(json.dumps({"curves": curves}))
    return AgentRun.named((*(str(root / f"run{seed}") for seed in range(3)), f"ppo:{root / 'none'}"))


@pytest.fixture(scope="module")
def evaluation(tiny_world: str, runs: tuple[AgentRun, ...]) -> Evaluation:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    policies = {run.label: shortish(4 + 2 * number) for number, run in enumerate(runs)}
    return evaluate(process, {**policies, "fixed:3": fixed_lengths(3, 16)}, scenes=6, agents=runs, lpips="alex", seed=3)


def test_agents_are_named_by_their_folders(tmp_path: Path) -> None:
    paths = [agent_folder(tmp_path / name) for name in ("a", "b", "x/a", "y/a")]
    first, second, third = AgentRun.named((paths[0], f"{paths[1]}/agent.zip", f"ppo:{paths[2]}"))
    assert (first.label, first.algorithm) == ("a", "grpo")
    assert (second.label, second.folder) == ("b", tmp_path / "b")
    assert (third.label, third.algorithm, third.seed, third.curves) == ("ppo:a", "ppo", None, None)
    assert [run.label for run in AgentRun.named(tuple(paths[2:]))] == paths[2:]


def test_intervals_hold_the_figures(evaluation: Evaluation) -> None:
    for name, figures in evaluation.comparison.results().items():
        for figure, (low, high) in evaluation.intervals[name].items():
            assert low - 1e-6 <= figures[figure] <= high + 1e-6, (name, figure)
    assert evaluation.intervals["oracle"]["gap_closed"] == (1.0, 1.0)
    assert evaluation.intervals["best_fixed"]["gap_closed"] == (0.0, 0.0)
    assert evaluation.intervals["fixed:3"]["tokens"] == (3.0, 3.0)


def test_runs_of_one_algorithm_are_aggregated(evaluation: Evaluation, runs: tuple[AgentRun, ...]) -> None:
    assert set(evaluation.runs) == {"grpo"}
    rewards = [evaluation.comparison.reward(run.label) for run in runs[:3]]
    found = evaluation.runs["grpo"]["reward"]
    assert found["values"] == pytest.approx(rewards)
    assert found["interquartile_mean"] == pytest.approx(np.mean(rewards))
    assert min(rewards) <= found["interval"][0] <= found["interval"][1] <= max(rewards)


def test_no_network_for_lpips_is_said_and_done_without(evaluation: Evaluation) -> None:
    # Whether or not the weights are on this machine, a clip of 16×16 pixels is too small for this network.
    assert len(evaluation.notes) == 1
    assert evaluation.notes[0].startswith("no LPIPS: Expected")
    assert "lpips" not in evaluation.comparison.results()["oracle"]


def test_the_folder(evaluation: Evaluation, runs: tuple[AgentRun, ...], tmp_path: Path) -> None:
    written = evaluation.write(tmp_path)
    names = {"results.json", "table.csv", "table.md", "allocation.png", "rate_distortion.png", "reward_curves.png"}
    assert {path.name for path in written} == names == {path.name for path in tmp_path.iterdir()}
    results = json.loads((tmp_path / "results.json").read_text())
    comparison = evaluation.comparison
    assert results["headroom"] == comparison.headroom
    span = results["oracle"]["reward"] - comparison.worst.reward
    assert results["headroom_share"] == pytest.approx(results["headroom"] / span)
    lengths = comparison.scores["oracle"].n_tokens.numpy()
    assert results["oracle_length_iqr"] == np.subtract(*np.percentile(lengths, [75, 25]))
    assert results["oracle_length_iqr_share"] == results["oracle_length_iqr"] / 16
    assert (results["clips"], results["clips_repeated"]) == (18, 0)
    clips = results["held_out_clips"]
    assert clips["id"] == evaluation.held_out.scene.ids.flatten().tolist()
    assert set(clips["label"]) <= set(evaluation.held_out.process.source.label_names)
    assert clips["complexity_score"] == pytest.approx(evaluation.held_out.score.flatten().tolist(), abs=1e-4)
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["variant"]) == list(comparison.scores)
    assert table.set_index("variant")["seed"].to_dict() == {
        **{run.label: 7 + number for number, run in enumerate(runs[:3])},
        **dict.fromkeys(("fixed:3", "best_fixed", "oracle"), 3),
        "ppo:none": pytest.approx(math.nan, nan_ok=True),
    }
    for column in ("tokens", "mse", "psnr", "accuracy", "reward", "gap_closed", "reward_low", "reward_high"):
        assert pd.api.types.is_float_dtype(table[column]), column
    assert "| best fixed |" in (tmp_path / "table.md").read_text()


def test_pictures_hold_every_policy(evaluation: Evaluation, runs: tuple[AgentRun, ...]) -> None:
    comparison = evaluation.comparison
    names = list(comparison.scores)
    panels = allocation_figure(comparison, evaluation.held_out.score, names)
    titles = [axis.get_title().split(" (")[0] for axis in panels.axes if axis.axison]
    assert titles == [name.replace("_", " ") for name in names]
    assert not any("nan" in axis.get_title() for axis in panels.axes)
    spread = rate_distortion_figure(comparison)
    labels = [text.get_text() for text in spread.axes[0].get_legend().get_texts()]
    assert labels == ["fixed length", "best allocation", *titles]
    _inside(spread)
    curves = reward_curves_figure({run.label: run.curves for run in runs if run.curves}, comparison)
    assert len(curves.axes[0].lines) == 2 * 3 + 2


def _inside(figure: Figure) -> None:
    """The legend beside the plot does not leave the picture."""
    figure.canvas.draw()
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_the_same_seed_gives_the_same_evaluation(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    first, again, other = (
        evaluate(process, {"random": random_lengths}, scenes=3, seed=seed).comparison.scores["random"].n_tokens
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
