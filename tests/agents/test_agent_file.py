"""Agents as data alone: a bit-exact round trip, and nothing in the file is run or trusted."""

import base64
import contextlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from vaportok_rl.agents import GRPO, TaildropPolicy, build_length_policy
from vaportok_rl.agents.agent_file import ALGORITHMS, _digest, read_agent, read_record, save_agent
from vaportok_rl.agents.lengths.trained import algorithm_of, load_agent, open_agent
from vaportok_rl.agents.reinforce import REINFORCE
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv
from vaportok_rl.experiments.runs.seeded_rounds import SeededRounds

NAMES = ("grpo", "ppo", "a2c", "reinforce")


def environment(world: str) -> TaildropVecEnv:
    return TaildropVecEnv(4, group_size=2, tokenizer=world, path_length=2)


def make(name: str, world: str, **more: Any) -> BaseAlgorithm:
    env = environment(world)
    if name == "grpo":
        return GRPO(env=env, seed=0, **more)
    algorithm, batch = {"ppo": (PPO, {"batch_size": 8}), "a2c": (A2C, {}), "reinforce": (REINFORCE, {})}[name]
    policy = {"tokenizer": world, "pretrained": False}
    return algorithm(TaildropPolicy, env, n_steps=2, seed=0, device="cpu", policy_kwargs=policy, **batch, **more)


def train(agent: BaseAlgorithm, first: bool) -> BaseAlgorithm:
    callback = None if isinstance(agent, GRPO) else SeededRounds(0)
    return agent.learn(16, callback=callback, reset_num_timesteps=first)


def states(agent: BaseAlgorithm) -> list[torch.Tensor]:
    """Every tensor of the agent, optimiser included."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(agent.get_parameters()) if isinstance(leaf, torch.Tensor)]


@pytest.fixture
def saved(tiny_world: str, tmp_path: Path) -> Path:
    return save_agent(make("ppo", tiny_world), tmp_path / "agent.safetensors", {"decisions": 8})


def rewrite(file: Path, change: Any) -> None:
    """Changes an agent file and updates its checksum, as an attacker could."""
    content, tensors = json.loads(_metadata(file)["agent"]), load_file(file)
    change(content, tensors)
    text = json.dumps(content)
    save_file(tensors, file, {"agent": text, "sha256": _digest(text, tensors)})


def _metadata(file: Path) -> dict[str, str]:
    raw = file.read_bytes()
    found: dict[str, str] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_to_the_bit(tiny_world: str, tmp_path: Path, name: str) -> None:
    parted = train(make(name, tiny_world), first=True)
    file = save_agent(parted, tmp_path / "agent.safetensors", {"decisions": 16})
    assert list(tmp_path.iterdir()) == [file]
    assert read_record(file) == {"algorithm": name, "decisions": 16}
    assert algorithm_of(tmp_path) == algorithm_of(file) == name
    loaded = read_agent(file, environment(tiny_world), "cpu")
    assert type(loaded) is type(parted)
    assert loaded.num_timesteps == parted.num_timesteps
    for agent in (parted, loaded):
        train(agent, first=False)
    assert len(states(loaded)) > len(list(loaded.policy.parameters()))
    for mine, other in zip(states(loaded), states(parted), strict=True):
        assert torch.equal(mine, other)
    assert load_agent(tmp_path).state_dict().keys() == parted.policy.state_dict().keys()


def test_a_schedule_is_kept(tiny_world: str, tmp_path: Path) -> None:
    agent = make("ppo", tiny_world, learning_rate=LinearSchedule(1e-3, 1e-4, 0.5))
    loaded: Any = read_agent(save_agent(agent, tmp_path / "agent.safetensors", {}))
    assert [loaded.lr_schedule(left) for left in (1.0, 0.75, 0.0)] == pytest.approx([1e-3, 5.5e-4, 1e-4])


def test_what_is_no_data_is_refused_when_it_is_saved(tiny_world: str, saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=r"learning_rate.*function"):
        save_agent(make("ppo", tiny_world, learning_rate=lambda left: 1e-3 * left), saved, {})
    with pytest.raises(TypeError):
        save_agent(make("ppo", tiny_world), saved, {"made by": object()})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_observations_are_left_out(tiny_world: str, tmp_path: Path) -> None:
    agent = train(make("ppo", tiny_world), first=True)
    assert agent._last_obs is not None
    file = save_agent(agent, tmp_path / "agent.safetensors", {})
    assert not any("_last" in name for name in load_file(file))


@pytest.mark.parametrize("at", [0.02, 0.5, 0.99])
def test_a_flipped_bit_is_noticed(saved: Path, at: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(at * len(content))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=f"{saved}.*copy it"):
        read_agent(saved)


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_part_of_a_file_is_noticed(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match="copy it"):
        read_agent(saved)


def test_weights_that_are_not_finite_are_named(tiny_world: str, saved: Path) -> None:
    def spoil(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith("weight"))
        tensors[name].view(-1)[0] = float("nan")

    before = saved.read_bytes()
    agent = make("ppo", tiny_world)
    with torch.no_grad():
        next(agent.policy.parameters()).fill_(float("inf"))
    with pytest.raises(ValueError, match="finite weights in an agent to be saved"):
        save_agent(agent, saved, {})
    assert saved.read_bytes() == before
    rewrite(saved, spoil)
    with pytest.raises(ValueError, match=r"finite weights .*parameters/policy/"):
        read_agent(saved)


@pytest.mark.parametrize(
    "change",
    [{"$class": "system"}, {"$class": "os:system"}, {"$reduce": ["os.system", "touch x"]}],
)
def test_no_file_chooses_what_is_imported(saved: Path, change: dict[str, Any]) -> None:
    rewrite(saved, lambda content, tensors: content["state"].update(policy_class=change))
    with pytest.raises(ValueError, match="plain data"):
        read_agent(saved)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["learning_rate", "ep_info_buffer", "further"])
def test_what_stable_baselines_would_unpickle_stays_data(saved: Path, tmp_path: Path, name: str) -> None:
    pickled = base64.b64encode(pickle.dumps(Evil(tmp_path / "marker"))).decode()
    rewrite(saved, lambda content, tensors: content["state"].update({name: {":type:": "x", ":serialized:": pickled}}))
    with contextlib.suppress(Exception):  # whatever Stable-Baselines3 makes of a dictionary in that place
        read_agent(saved)
    assert not (tmp_path / "marker").exists()


def test_archives_are_read_only_if_they_are_trusted(tiny_world: str, tmp_path: Path) -> None:
    agent = make("grpo", tiny_world)
    agent.save(tmp_path / "agent.zip")
    process = TaildropProcess(tokenizer=tiny_world, path_length=2)
    for spec in (str(tmp_path), str(tmp_path / "agent.zip"), f"grpo:{tmp_path / 'agent.zip'}"):
        with pytest.raises(ValueError, match=r"runs whatever code.*--trust-archives"):
            build_length_policy(spec, process)
        build_length_policy(spec, process, trust_archives=True)
    marker = tmp_path / "marker"
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("data", pickle.dumps(Evil(marker)))
        archive.writestr("policy.pth", pickle.dumps(Evil(marker)))
    for algorithm in ALGORITHMS:
        with pytest.raises(ValueError, match="--trust-archives"):
            open_agent(tmp_path / "evil.zip", algorithm)
    assert not marker.exists()


def test_an_archive_of_weights_that_are_not_finite_is_refused(tiny_world: str, tmp_path: Path) -> None:
    agent = make("ppo", tiny_world)
    with torch.no_grad():
        next(agent.policy.parameters()).fill_(float("nan"))
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="finite weights"):
        open_agent(tmp_path / "agent.zip", "ppo", trust_archives=True)
