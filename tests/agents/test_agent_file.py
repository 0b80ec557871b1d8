"""An agent file says which algorithm trained it, and every loader still reads it."""

import zipfile
from pathlib import Path

import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.agents import GRPO, TaildropPolicy
from vaportok_rl.agents.agent_file import RECORD, read_record, save_agent
from vaportok_rl.agents.lengths.trained import algorithm_of, load_agent
from vaportok_rl.agents.reinforce import REINFORCE
from vaportok_rl.envs import TaildropVecEnv


def make(name: str, world: str) -> BaseAlgorithm:
    env = TaildropVecEnv(4, group_size=2, tokenizer=world, path_length=2)
    if name == "grpo":
        return GRPO(env=env, seed=0)
    algorithm, batch = {"ppo": (PPO, {"batch_size": 8}), "a2c": (A2C, {}), "reinforce": (REINFORCE, {})}[name]
    policy = {"tokenizer": world, "pretrained": False}
    return algorithm(TaildropPolicy, env, n_steps=2, seed=0, device="cpu", policy_kwargs=policy, **batch)


@pytest.mark.parametrize("name", ["grpo", "ppo", "a2c", "reinforce"])
def test_the_file_knows_its_algorithm(tiny_world: str, tmp_path: Path, name: str) -> None:
    agent = make(name, tiny_world)
    agent.learn(8)
    file = save_agent(agent, tmp_path / "agent.zip", {"algorithm": name, "decisions": 8})
    assert list(tmp_path.iterdir()) == [file]
    assert read_record(file) == {"algorithm": name, "decisions": 8}
    assert algorithm_of(tmp_path) == algorithm_of(file) == name
    policy = load_agent(tmp_path)
    for mine, other in zip(policy.parameters(), agent.policy.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert type(agent).load(file, device="cpu").num_timesteps == 8


def test_a_file_without_a_record(tiny_world: str, tmp_path: Path) -> None:
    make("ppo", tiny_world).save(tmp_path / "ppo.zip")
    make("grpo", tiny_world).save(tmp_path / "grpo.zip")
    assert read_record(tmp_path / "ppo.zip") == {}
    assert algorithm_of(tmp_path / "grpo.zip") == "grpo"
    with pytest.raises(ValueError, match="got another algorithm's; write its name before the path"):
        algorithm_of(tmp_path / "ppo.zip")


def test_a_failed_save_leaves_the_last_one(tiny_world: str, tmp_path: Path) -> None:
    agent = make("ppo", tiny_world)
    file = save_agent(agent, tmp_path / "agent.zip", {"algorithm": "ppo"})
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_agent(agent, file, {"algorithm": object()})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_observations_are_left_out(tiny_world: str, tmp_path: Path) -> None:
    agent = make("ppo", tiny_world)
    agent.learn(8)
    file = save_agent(agent, tmp_path / "agent.zip", {})
    assert agent._last_obs is not None
    with zipfile.ZipFile(file) as archive:
        assert b"_last_obs" not in archive.read("data")
        assert RECORD in archive.namelist()
