"""GRPO outside video: the example runs, and (slow) solves CartPole on every seed."""

import importlib

import pytest


def run(**settings: int) -> tuple[float, int]:
    example = importlib.import_module("grpo_cartpole")
    found: tuple[float, int] = example.main(example.Arguments(**settings))
    return found


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    mean, steps = run(timesteps=500, episodes=10)
    assert 8 <= mean <= 500
    assert steps >= 500
    assert "mean return" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_solves_cartpole(seed: int) -> None:
    mean, steps = run(seed=seed)
    assert mean >= 400
    assert steps <= 200_000
