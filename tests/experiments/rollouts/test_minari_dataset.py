"""A rollout as a Minari dataset: read back with Minari, replayed in the environment it recovers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from vaportok_rl.envs import TaildropProcess, VaporReward
from vaportok_rl.experiments.rollouts.minari_dataset import MinariRecorder, environment_spec
from vaportok_rl.experiments.rollouts.playing import Rollout, rollout
from vaportok_rl.runtime.held_folders import LOCK_FILE


@pytest.fixture
def minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return pytest.importorskip("minari")


def recorded(process: TaildropProcess, name: str, paths: int = 1) -> tuple[Rollout, MinariRecorder]:
    recorder = MinariRecorder(name, process, "random")
    return rollout(process, "random", 3, seed=5, paths=paths, on_episode=recorder.add), recorder


@pytest.mark.parametrize("obs", ["latents", "complexity", "codes", "clip", ("codes", "clip")])
def test_round_trip(minari: Any, tiny_world: str, obs: str | tuple[str, ...]) -> None:
    reward = {"scale": 1.0, "weights": {"efficiency": 2.0, "log_mse": 0.1}}
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, obs=obs, token_budget=20, reward=reward)
    done, recorder = recorded(process, "vaportok/random-v3", paths=2)
    assert recorder.save() == recorder.folder
    dataset = minari.load_dataset("vaportok/random-v3")
    assert (dataset.total_episodes, dataset.total_steps) == (6, 18)
    assert dataset.spec.action_space == process.single_action_space
    assert dataset.spec.observation_space == process.single_observation_space
    env = dataset.recover_environment()
    assert env.unwrapped.settings["split"] == "train"
    assert dataset.recover_environment(eval_env=True).unwrapped.settings["split"] == "test"
    seeds = [metadata["seed"] for metadata in dataset.storage.get_episode_metadata(range(6))]
    assert seeds == [5, 5, 6, 6, 7, 7]
    rows = dict(iter(done.rows.groupby(["scene", "path"])))
    for number, episode in enumerate(dataset.iterate_episodes()):
        expected = rows[number // 2, number % 2]
        assert (episode.actions + 1).tolist() == expected["n_chosen"].tolist()
        assert np.array_equal(episode.rewards, expected["reward"])
        assert episode.terminations.tolist() == [False, False, True]
        assert not episode.truncations.any()
        assert set(episode.infos) == set(done.rows) - {"scene", "path", "step", "reward"}
        for name, values in episode.infos.items():
            assert values[0] in (0, "")
            np.testing.assert_array_equal(np.asarray(values[1:]), expected[name], name)
        observation, _ = env.reset(seed=seeds[number])
        for step in range(4):
            shown = {"only": observation} if isinstance(obs, str) else observation
            held = {"only": episode.observations} if isinstance(obs, str) else episode.observations
            for name, value in shown.items():
                assert held[name][step].dtype == value.dtype
                assert np.array_equal(held[name][step], value)
            if step < 3:
                observation, paid, *_ = env.step(int(episode.actions[step]))
                assert paid == episode.rewards[step]


def test_names(minari: Any, tiny_world: str, tmp_path: Path) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, obs="complexity")
    _, recorder = recorded(process, "mine")
    assert recorder.save() == tmp_path / "datasets" / "mine-v0"
    assert minari.load_dataset("mine-v0").total_episodes == 3
    with pytest.raises(FileExistsError, match=r"Expected a new Minari dataset, got mine-v0, which exists"):
        MinariRecorder("mine-v0", process, "random")
    for name in ("", "a b", "/mine", "../mine", "mine/"):
        with pytest.raises(ValueError, match="Expected a Minari dataset name such as"):
            MinariRecorder(name, process, "random")


def test_a_dataset_that_fails_half_way_leaves_nothing(
    minari: Any, tiny_world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, obs="complexity")
    _, recorder = recorded(process, "mine")

    def interrupted(name: str, *_: object, **__: object) -> None:
        Path(os.environ["MINARI_DATASETS_PATH"], name, "data").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "create_dataset_from_buffers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorder.save()
    assert not recorder.folder.exists()


def test_what_a_killed_process_left_is_not_read_and_is_replaced(minari: Any, tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, obs="complexity")

    def saved() -> dict[str, bytes]:
        folder = recorded(process, "name/space/mine")[1].save()
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    whole = saved()
    assert list(minari.list_local_datasets()) == ["name/space/mine-v0"]
    assert set(minari.namespace.list_local_namespaces()) >= {"name/space"}
    folder = MinariRecorder("name/space/other", process, "random").folder.with_name("mine-v0")
    (folder / "data/metadata.json").unlink()
    (folder / LOCK_FILE).touch()
    (folder / "data/episode_0.part").touch()
    with pytest.raises(ValueError, match="No data found"):
        minari.load_dataset("name/space/mine-v0")
    assert saved() == whole


def test_without_minari(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ModuleNotFoundError, match=r"Expected Minari .* `pip install '\.\[minari\]'`"):
        MinariRecorder("mine", process, "random")


def test_the_specification_is_the_environment(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, clips=("procedural",), min_tokens=2)
    process.reward = process.reward.with_weights({"diversity": 0.25})
    spec = EnvSpec.from_json(environment_spec(process).to_json())
    env = gymnasium.make(spec)
    assert env.unwrapped.process.reward.weights == process.reward.weights
    assert env.unwrapped.process.token_range == process.token_range
    assert json.loads(spec.to_json())["kwargs"]["path_length"] == 3


def test_a_reward_of_objects_cannot_be_written(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, reward=VaporReward())
    with pytest.raises(ValueError, match="Expected an environment of plain data"):
        environment_spec(process)
