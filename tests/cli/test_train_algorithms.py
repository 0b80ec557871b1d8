"""``train --algo``: each algorithm from the command line, resumed, and evaluated from its run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vaportok_rl.cli.main import main
from vaportok_rl.experiments.runs.algorithms import ALGORITHMS

_SHAPE = ["--path-length", "3", "--scenes", "2", "--group-size", "4", "--held-out-scenes", "2"]


def test_every_algorithm_trains_resumes_and_is_evaluated(
    tiny_world: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vaportok_rl.experiments.runs.training.draw", lambda *_: None)
    runs = []
    for algo in ALGORITHMS:
        out = str(tmp_path / algo)
        command = ["train", "--algo", algo, "--tokenizer", tiny_world, *_SHAPE, "--out", out]
        main([*command, "--decisions", "24"])
        assert "saved" in capsys.readouterr().out
        assert "nothing was overwritten" in fails(*command, "--decisions", "48")
        main([*command, "--decisions", "48", "--resume"])
        assert "at decision 24" in capsys.readouterr().out
        results = json.loads((tmp_path / algo / "results.json").read_text())
        assert (results["algorithm"], results["decisions"]) == (algo, 48)
        assert yaml.safe_load((tmp_path / algo / "config.yaml").read_text())["algo"] == algo
        runs.append(out)
    world = ["--tokenizer", tiny_world, "--path-length", "3", "--scenes", "2", "--baselines", "none"]
    main(["evaluate", "--agent", *runs, *world, "--lpips", "none", "--out", str(tmp_path / "evaluated")])
    evaluated = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    text = json.dumps(evaluated)
    assert all(algo in text for algo in ALGORITHMS)


def test_mistakes(tiny_world: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    world, out = ["--tokenizer", tiny_world], ["--out", str(tmp_path / "run")]
    assert "--out with --resume" in fails("train", *world, "--resume")
    assert "start it without --resume" in fails("train", *world, *out, "--resume")
    assert "which only grpo reads" in fails("train", *world, *out, "--algo", "ppo", "--kl-coef", "0.5")
    assert "which only ppo reads" in fails("train", *world, *out, "--ppo.n-epochs", "7")
    assert not (tmp_path / "run").exists()
