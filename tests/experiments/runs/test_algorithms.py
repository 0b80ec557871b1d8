"""All algorithms train the same module on the same scenes, can be resumed, and write the same files."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from vaportok_rl.agents import TaildropPolicy, build_length_policy
from vaportok_rl.agents.agent_file import AGENT_FILE, algorithm_class, read_record
from vaportok_rl.agents.lengths.trained import load_agent
from vaportok_rl.envs import Outcome, TaildropProcess
from vaportok_rl.envs.rewards.contract import NonFiniteRewardError
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.experiments.runs.algorithms import (
    ALGORITHMS,
    A2CSettings,
    PPOSettings,
    ReinforceSettings,
)
from vaportok_rl.experiments.runs.seeded_rounds import SeededRounds
from vaportok_rl.experiments.runs.training import TrainedRun, TrainSettings, open_held_out, prepare, train
from vaportok_rl.experiments.runs.world_settings import RewardSettings
from vaportok_rl.runtime.held_folders import release_run_folder
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError

ROUND = 3 * 2 * 4  # path length × scenes × group size


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most of the time of a tiny run, and `test_training` looks at them."""
    monkeypatch.setattr("vaportok_rl.experiments.runs.training.draw", lambda *_: None)
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.add_clip", lambda *_: None)


def settings_for(world: str, algo: str, **changes: Any) -> TrainSettings:
    shape = {"path_length": 3, "scenes": 2, "group_size": 4, "held_out_scenes": 2, "decisions": 4 * ROUND, "seed": 5}
    return TrainSettings(**{"tokenizer": world, "algo": algo, **shape, **changes})


def run(settings: TrainSettings, folder: Path, on_round: Any = None, resume: bool = False) -> TrainedRun:
    if not resume:
        create_run_folder(folder.parent, "x", folder)
    return train(settings, folder, open_held_out(settings), on_round, resume)


class Scenes(BaseCallback):
    """Notes which clips each group sees: one list a round, ``[scenes, path length]``."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[list[list[int]]] = []
        self._steps: list[np.ndarray] = []

    def _on_step(self) -> bool:
        if "rollout" in self.locals:
            if self.locals["rollout"] is None:
                return True
            self.rounds.append(self.locals["rollout"].scene.ids.tolist())
        else:
            ids = np.array([info["clip_id"] for info in self.locals["infos"]]).reshape(2, 4)
            assert (ids == ids[:, :1]).all()  # the members of a group see the same
            self._steps.append(ids[:, 0])
            if len(self._steps) == 3:
                self.rounds.append(np.stack(self._steps, 1).tolist())
                self._steps = []
        return True


def visited(settings: TrainSettings) -> list[list[list[int]]]:
    agent, scenes = prepare(settings), Scenes()
    callbacks = [scenes] if settings.algo == "grpo" else [SeededRounds(settings.seed), scenes]
    agent.learn(settings.decisions, callback=callbacks)
    return scenes.rounds


def test_all_visit_the_same_scenes_in_the_same_order(tiny_world: str) -> None:
    expected = visited(settings_for(tiny_world, "grpo"))
    assert len(expected) == 4
    assert len({str(scenes) for scenes in expected}) == 4
    for algo in ALGORITHMS[1:]:
        assert visited(settings_for(tiny_world, algo)) == expected, algo
    assert visited(settings_for(tiny_world, "ppo", seed=6)) != expected


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_same_module_begins(tiny_world: str, algo: str) -> None:
    agent = prepare(settings_for(tiny_world, algo))
    assert type(agent) is algorithm_class(algo)
    assert isinstance(agent.policy, TaildropPolicy)
    assert agent.policy.pretrained
    reference = prepare(settings_for(tiny_world, "grpo")).policy
    for (name, mine), other in zip(agent.policy.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, other), name
    assert isinstance(agent.policy.optimizer, torch.optim.Adam)


def test_settings_arrive(tiny_world: str) -> None:
    ppo = prepare(settings_for(tiny_world, "ppo", ppo=PPOSettings(learning_rate=0.5, n_epochs=3, minibatches=2)))
    assert (ppo.learning_rate, ppo.n_epochs, ppo.batch_size, ppo.n_steps) == (0.5, 3, 12, 3)  # type: ignore[attr-defined]
    assert ppo.gamma == 1  # type: ignore[attr-defined]
    a2c = prepare(settings_for(tiny_world, "a2c", a2c=A2CSettings(vf_coef=0.125)))
    assert (a2c.vf_coef, a2c.normalize_advantage) == (0.125, True)  # type: ignore[attr-defined]
    plain = prepare(settings_for(tiny_world, "reinforce", reinforce=ReinforceSettings(baseline_decay=0.5)))
    assert plain.baseline_decay == 0.5  # type: ignore[attr-defined]
    grpo = prepare(settings_for(tiny_world, "grpo", credit="clip", kl_coef=0.25))
    assert (grpo.credit, grpo.kl_coef) == ("clip", 0.25)  # type: ignore[attr-defined]


def test_settings_that_nobody_reads_are_refused(tiny_world: str) -> None:
    with pytest.raises(ValueError, match=r"settings of ppo, got kl_coef, which only grpo reads.*--ppo\.learning-rate"):
        prepare(settings_for(tiny_world, "ppo", kl_coef=0.0))
    with pytest.raises(ValueError, match="settings of grpo, got a2c, which only a2c reads; drop them"):
        prepare(settings_for(tiny_world, "grpo", a2c=A2CSettings(vf_coef=0.0)))
    for algo, changes in (
        ("ppo", {"group_size": 1}),
        ("grpo", {"seed": -1}),
        ("grpo", {"seed": 5_000_000_000}),
        ("grpo", {"decisions": 0}),
        ("ppo", {"ppo": PPOSettings(clip_range=-1)}),
        ("ppo", {"ppo": PPOSettings(gae_lambda=5)}),
        ("a2c", {"a2c": A2CSettings(max_grad_norm=float("nan"))}),
    ):
        with pytest.raises(ValueError, match=r"Expected .*[≤≥>].*, got"):
            prepare(settings_for(tiny_world, algo, **changes))


def test_a_rollout_must_be_one_path(tiny_world: str) -> None:
    agent = prepare(settings_for(tiny_world, "a2c"))
    agent.n_steps = 5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="Expected n_steps=3, the path length, got 5"):
        agent.learn(10, callback=SeededRounds(0))


def assert_same_run(first: Path, second: Path) -> None:
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()
    pairs = zip(load_agent(first).state_dict().items(), load_agent(second).state_dict().values(), strict=True)
    for (name, mine), other in pairs:
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_resumed_run_is_the_uninterrupted_one(tiny_world: str, tmp_path: Path, algo: str) -> None:
    # A rate that falls shows whether a resumed run knows how far it is.
    settings = settings_for(tiny_world, algo, **({"final_learning_rate": 0.0} if algo == "grpo" else {}))
    whole = run(settings, tmp_path / "whole")
    results = json.loads((whole.folder / "results.json").read_text())
    assert (results["algorithm"], results["decisions"], results["interrupted"]) == (algo, 4 * ROUND, False)
    assert [decisions for decisions, _ in results["curves"]["training"]] == [ROUND * k for k in range(1, 5)]
    assert [decisions for decisions, _ in results["curves"]["held_out"]] == [0, 2 * ROUND, 4 * ROUND]
    initial = prepare(settings).policy.state_dict()
    assert any(not torch.equal(value, initial[name]) for name, value in load_agent(whole.folder).state_dict().items())

    def raise_after_one(decisions: int, live: dict[str, float]) -> None:
        raise KeyboardInterrupt

    def press_after_two(decisions: int, live: dict[str, float]) -> None:
        if decisions == 2 * ROUND:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "parts"
    handler = signal.getsignal(signal.SIGINT)
    part = run(settings, folder, raise_after_one)
    assert part.interrupted
    assert part.decisions == ROUND
    part = run(settings, folder, press_after_two, resume=True)
    assert part.interrupted
    assert part.decisions == 2 * ROUND
    assert json.loads((folder / "results.json").read_text())["interrupted"] is True
    assert signal.getsignal(signal.SIGINT) is handler  # a job in the background has another than a foreground one
    assert not run(settings, folder, resume=True).interrupted
    assert_same_run(folder, whole.folder)
    run(settings, folder, resume=True)  # nothing is left to do
    assert_same_run(folder, whole.folder)


def test_more_decisions_prolong_a_run_and_other_settings_are_refused(tiny_world: str, tmp_path: Path) -> None:
    whole = run(settings_for(tiny_world, "ppo"), tmp_path / "whole")
    run(settings_for(tiny_world, "ppo", decisions=2 * ROUND), tmp_path / "run")
    with pytest.raises(ValueError, match=r"other values for seed \(seed: 5 then, 6 now\)"):
        run(settings_for(tiny_world, "ppo", seed=6), tmp_path / "run", resume=True)
    longer = run(settings_for(tiny_world, "ppo"), tmp_path / "run", resume=True)
    assert_same_run(longer.folder, whole.folder)
    with pytest.raises(FileNotFoundError, match=r"Expected a run to resume in .*; start it without --resume"):
        run(settings_for(tiny_world, "ppo"), tmp_path, resume=True)


def test_a_run_that_was_killed_before_its_first_save_begins_anew(tiny_world: str, tmp_path: Path) -> None:
    settings = settings_for(tiny_world, "a2c", decisions=2 * ROUND)
    whole = run(settings, tmp_path / "whole")
    create_run_folder(tmp_path, "x", tmp_path / "killed")
    write_config(tmp_path / "killed", settings)
    release_run_folder(tmp_path / "killed")
    with pytest.raises(FileExistsError, match="--resume"):
        create_run_folder(tmp_path, "x", tmp_path / "killed")
    assert_same_run(run(settings, tmp_path / "killed", resume=True).folder, whole.folder)


def late_nan(outcome: Outcome) -> torch.Tensor:
    """NaN where the reconstruction is good, which the dry run does not try."""
    return torch.log(outcome.mse - LEAST["mse"])


LEAST = {"mse": 0.0}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_reward_that_is_not_finite_stops_training_and_keeps_the_weights(
    tiny_world: str, tmp_path: Path, algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[str, Any] = {"reward": RewardSettings(terms=(f"{__name__}:late_nan",))}
    if algo == "grpo":  # a rate that falls over the whole run would tell 2 rounds of 8 from 2 of 2
        own["final_learning_rate"] = 1.0
    settings = settings_for(tiny_world, algo, decisions=8 * ROUND, **own)

    def poison(decisions: int, live: dict[str, float]) -> None:
        if decisions == 2 * ROUND:
            monkeypatch.setitem(LEAST, "mse", 10.0)

    folder = create_run_folder(tmp_path, "x", tmp_path / "run")
    with pytest.raises((NonFiniteLossError, NonFiniteRewardError), match=r"late_nan"):
        train(settings, folder, open_held_out(settings), poison)
    monkeypatch.setitem(LEAST, "mse", 0.0)
    assert read_record(folder / AGENT_FILE)["decisions"] == 2 * ROUND
    kept = load_agent(folder).state_dict()
    expected = run(settings_for(tiny_world, algo, decisions=2 * ROUND, **own), tmp_path / "short")
    for name, value in load_agent(expected.folder).state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("algo", ALGORITHMS[1:])
def test_a_run_folder_is_a_policy(tiny_world: str, tmp_path: Path, algo: str) -> None:
    done = run(settings_for(tiny_world, algo, decisions=2 * ROUND), tmp_path / "run")
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    scene = process.sample_scene([np.random.default_rng(0)])
    chosen = [
        build_length_policy(spec, process)(scene, torch.Generator())
        for spec in (str(done.folder), f"{algo}:{done.folder / AGENT_FILE}")
    ]
    assert torch.equal(chosen[0].n_tokens, chosen[1].n_tokens)
    torch.testing.assert_close(chosen[0].log_prob, chosen[1].log_prob)
