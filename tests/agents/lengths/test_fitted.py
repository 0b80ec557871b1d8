"""Fitted rules against scoring all candidate rules."""

import numpy as np
import pytest
import torch

from vaportok_rl.agents import build_length_policy
from vaportok_rl.agents.lengths.calibration import Calibration
from vaportok_rl.agents.lengths.specs import baseline_specs
from vaportok_rl.envs import Scene, TaildropProcess

REWARD = {"weights": {"efficiency": 3}, "n_threshold": 9, "threshold_unit": "tokens"}


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, path_length=3, split="test", reward=REWARD)


@pytest.fixture(scope="module")
def calibration(process: TaildropProcess) -> Calibration:
    return Calibration(process)


@pytest.fixture(scope="module")
def scene(process: TaildropProcess) -> Scene:
    return process.sample_scene([np.random.default_rng(seed) for seed in range(6)])


def earned(process: TaildropProcess, scene: Scene, lengths: torch.Tensor) -> float:
    return process.reward(process.engine.score(scene, lengths[None])).total.mean().item()


def test_calibration_is_on_the_training_split_and_under_the_reward_of_the_process(
    process: TaildropProcess, calibration: Calibration
) -> None:
    training = calibration.scored()
    assert training.process.settings.split == "train"
    assert training is calibration.scored()
    assert calibration.scored(2).scene.shape == (2, 3)
    heavier = TaildropProcess(**process.settings.as_arguments())
    heavier.reward = heavier.reward.with_weights({"efficiency": 100})
    assert Calibration(heavier).best_fixed() == 1 != calibration.best_fixed()


def test_affine_beats_every_other_line(process: TaildropProcess, calibration: Calibration) -> None:
    training = calibration.scored()
    policy = build_length_policy("complexity-affine", process, calibration)
    best = earned(training.process, training.scene, policy(training.scene, torch.Generator()).n_tokens)
    score = training.score
    for simple in np.linspace(-8, 24, 9):
        for complex_ in np.linspace(-8, 24, 9):
            line = (simple + (complex_ - simple) * score).round().clamp(1, 16).long()
            assert earned(training.process, training.scene, line) <= best + 1e-5


def test_loss_proportional(process: TaildropProcess, calibration: Calibration, scene: Scene) -> None:
    training = calibration.scored()
    policy = build_length_policy("loss-proportional", process, calibration)

    def error(some: Scene) -> torch.Tensor:
        return process.engine.score(some, torch.full(some.shape, 16)[None]).mse[0]

    def rule(mean_tokens: int, some: Scene) -> torch.Tensor:
        return (mean_tokens * (error(some) / error(training.scene).mean())).round().clamp(1, 16).long()

    rewards = [earned(training.process, training.scene, rule(n, training.scene)) for n in range(1, 17)]
    assert torch.equal(policy(scene, torch.Generator()).n_tokens, rule(int(np.argmax(rewards)) + 1, scene))


def test_all_baselines_build_and_keep_lengths(
    process: TaildropProcess, calibration: Calibration, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaportok_rl.agents.lengths.router.ROUTER_SCENES", 5)
    specs = baseline_specs(calibration)
    best = calibration.best_fixed()
    assert {"random", "best-fixed", "argmax", "complexity", "complexity-affine", "loss-proportional"} < set(specs)
    assert {"router", f"budget:{best}", f"lagrangian:{best}"} < set(specs)
    assert sum(spec.startswith("threshold:") for spec in specs) == 2
    for spec in specs:
        lengths = build_length_policy(spec, process, calibration)(scene, torch.Generator().manual_seed(0)).n_tokens
        assert lengths.shape == scene.shape
        assert lengths.dtype == torch.int64
        assert lengths.min() >= 1
        assert lengths.max() <= 16
