"""Runs are resumed, and agents evaluated, only with the clips, weights and reward of their training."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaportok_rl.agents.agent_file import AGENT_FILE, ARCHIVE_FILE
from vaportok_rl.cli.main import main
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.runs.inputs import input_hashes
from vaportok_rl.tokenizer import load_checkpoint, save_checkpoint

SHAPE = ["--scenes", "2", "--group-size", "2", "--path-length", "2", "--held-out-scenes", "1"]


@pytest.fixture
def world(tiny_world: str, tmp_path: Path) -> Path:
    """A world that may be changed."""
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


def change_weights(world: Path) -> None:
    model = load_checkpoint(str(world))
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    save_checkpoint(model, world)


@pytest.fixture
def train(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setattr("vaportok_rl.experiments.runs.training.draw", lambda *_: None)

    def run(name: str, *more: str, decisions: int = 8) -> Path:
        command = ["train", "--tokenizer", str(world), *SHAPE, "--decisions", str(decisions), *more]
        main([*command, "--out", str(tmp_path / name)])
        return tmp_path / name

    return run


def test_hashes_tell_contents_apart(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashes(**more: object) -> dict[str, str]:
        return input_hashes(TaildropProcess(tokenizer=str(world), path_length=2, **more))  # type: ignore[arg-type]

    first = hashes()
    assert set(first) == {"train clips", "weights", "reward"}
    assert hashes() == first
    assert hashes(clip_seed=1)["train clips"] != first["train clips"]
    assert hashes(reward={"weights": {"diversity": 0.5}})["reward"] != first["reward"]
    monkeypatch.syspath_prepend(tmp_path)
    term = tmp_path / "own_term.py"
    term.write_text("def fee(outcome):\n    return -0.1 * outcome.mse\n")
    own = hashes(reward={"terms": ["own_term:fee"]})["reward"]
    term.write_text("def fee(outcome):\n    return -0.2 * outcome.mse\n")
    assert hashes(reward={"terms": ["own_term:fee"]})["reward"] != own
    change_weights(world)
    assert hashes()["weights"] != first["weights"]


def test_other_weights_of_one_name_are_refused_or_accepted(
    train: Callable[..., Path],
    world: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("run")
    kept = str(shutil.copytree(world, tmp_path / "kept"))
    change_weights(world)
    resume = ["train", "--tokenizer", str(world), *SHAPE, "--decisions", "16", "--out", str(run), "--resume"]
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    message = fails(*resume)
    assert "weights" in message
    assert "--accept-differences" in message
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    judge = ["evaluate", "--agent", str(run), "--tokenizer", str(world), "--path-length", "2", "--scenes", "1"]
    judge += ["--baselines", "none", "--lpips", "none", "--out", str(tmp_path / "judged")]
    assert "weights" in fails(*judge)
    warnings.simplefilter("always")
    main([*judge[:-1], str(tmp_path / "before"), "--tokenizer", kept])
    assert f"trained on {world}, where there are other weights by now" in capsys.readouterr().err
    for command in (judge, resume):
        main([*command, "--accept-differences"])
        assert "trained on other weights" in capsys.readouterr().err


def test_an_agent_is_judged_by_its_own_reward(
    train: Callable[..., Path], world: Path, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_term.py").write_text("def fee(outcome):\n    return 0 * outcome.mse - 100\n")
    monkeypatch.syspath_prepend(tmp_path)
    plain, other = train("plain"), train("other", "--seed", "1")
    bound = ("--reward.constraint", "tokens<=1", "--reward.constraint-rate", "100")
    own = train("own", "--reward.terms", "other_term:fee", *bound)

    def judged(name: str, *agents: Path, more: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
        command = ["evaluate", "--agent", *map(str, agents), "--tokenizer", str(world), "--path-length", "2"]
        command += ["--scenes", "1", "--baselines", "none", "--lpips", "none", *more, "--out", str(tmp_path / name)]
        main(command)
        found: dict[str, dict[str, float]] = json.loads((tmp_path / name / "results.json").read_text())
        return found

    by_own = judged("a", own)
    assert by_own["own"]["reward"] < -100
    # With the multiplier that was learnt, as at the end of training on the same clips.
    assert by_own["own"]["reward"] == json.loads((own / "results.json").read_text())["trained"]["reward"]
    assert "other_term:fee" in str(by_own["notes"])
    everything = judged("b", plain, other, own, more=("--other-reward",))
    assert everything["own"]["reward"] > -100
    assert sorted(len(found["reward"]["values"]) for found in everything["runs"].values()) == [2]  # type: ignore[index]
    assert "one reward" in fails("evaluate", "--agent", str(plain), str(own), "--tokenizer", str(world))
    asked = ("--reward.preset", "paper", "--tokenizer", str(world))
    assert "--other-reward" in fails("evaluate", "--agent", str(plain), *asked)
    shutil.copytree(plain, tmp_path / "copy")
    for again in (plain, plain / AGENT_FILE, plain / ARCHIVE_FILE, tmp_path / "copy"):
        assert "which are the same" in fails("evaluate", "--agent", str(plain), str(again), "--tokenizer", str(world))
