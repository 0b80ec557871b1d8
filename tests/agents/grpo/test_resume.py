"""An interrupted run resumes bit-exactly, and files of another geometry are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from torch import Tensor

from vaportok_rl.agents import GRPO
from vaportok_rl.envs import TaildropVecEnv, shared_world
from vaportok_rl.registration import TAILDROP_ID
from vaportok_rl.tokenizer import VaporTok

OPTIONS: dict[str, Any] = {
    "seed": 5,
    "batch_size": 2,
    "learning_rate": lambda remaining: 1e-2 * remaining,
    "clip_range": lambda remaining: 0.1 + 0.2 * remaining,
    "ref_sync_every": 2,
    "ref_sync_mix": 0.5,
}


def tiny_env(world: str) -> TaildropVecEnv:
    return TaildropVecEnv(12, group_size=4, path_length=2, tokenizer=world)


def everything(model: GRPO) -> list[Tensor]:
    states = [model.policy.state_dict(), model.reference_policy.state_dict()]
    optimizer = model.policy.optimizer.state_dict()["state"]
    return [*(value for state in (*states, *optimizer.values()) for value in state.values())]


def assert_same(first: GRPO, second: GRPO) -> None:
    assert (first.num_timesteps, first.rounds, first._n_updates) == (
        second.num_timesteps,
        second.rounds,
        second._n_updates,
    )
    for one, other in zip(everything(first), everything(second), strict=True):
        assert torch.equal(one, other)


class Stop(BaseCallback):
    """Ends training in the n-th step, by its answer or by Ctrl-C."""

    def __init__(self, after: int, by: type[BaseException] | None) -> None:
        super().__init__()
        self.after, self.by = after, by

    def _on_step(self) -> bool:
        if self.n_calls == self.after and self.by is not None:
            raise self.by
        return self.n_calls < self.after


def taildrop(world: str) -> GRPO:
    return GRPO(env=tiny_env(world), **OPTIONS)


def cartpole(world: str) -> GRPO:
    options = OPTIONS | {"kl_coef": 0.01}
    return GRPO("MlpPolicy", "CartPole-v1", group_size=3, scenes=4, device="cpu", **options)


@pytest.mark.parametrize("by", [None, KeyboardInterrupt], ids=["callback", "Ctrl-C"])
@pytest.mark.parametrize(("make", "total", "after"), [(taildrop, 24 * 6, 3), (cartpole, 2400, 30)])
def test_a_stopped_run_goes_on_to_the_bit(
    tiny_world: str, tmp_path: Path, make: Callable[[str], GRPO], total: int, after: int, by: type[BaseException] | None
) -> None:
    whole = make(tiny_world).learn(total)
    assert whole.rounds >= 3
    parts = make(tiny_world)
    try:
        parts.learn(total, callback=Stop(after, by))
    except KeyboardInterrupt:
        assert by is KeyboardInterrupt
    assert parts.num_timesteps < total
    parts.save(tmp_path / "agent.zip")
    torch.manual_seed(99)  # the rest must not depend on it
    env = tiny_env(tiny_world) if make is taildrop else make(tiny_world).get_env()
    loaded = GRPO.load(tmp_path / "agent.zip", env=env, device="cpu")
    loaded.learn(total - loaded.num_timesteps, reset_num_timesteps=False)
    assert_same(whole, loaded)
    # So does the agent that was stopped, without a file between.
    parts.learn(total - parts.num_timesteps, reset_num_timesteps=False)
    assert_same(whole, parts)


def test_every_checkpoint_leads_to_the_same_agent(tiny_world: str, tmp_path: Path) -> None:
    total = 24 * 4
    whole = taildrop(tiny_world)
    whole.learn(total, callback=CheckpointCallback(save_freq=1, save_path=str(tmp_path), name_prefix="at"))
    for done in (12, 24, 36, 48, 60, 72, 84, 96):
        loaded = GRPO.load(tmp_path / f"at_{done}_steps.zip", env=tiny_env(tiny_world))
        assert loaded.num_timesteps == done
        loaded.learn(total - done, reset_num_timesteps=False)
        assert_same(whole, loaded)


def test_an_agent_without_a_seed_goes_on_too(tiny_world: str, tmp_path: Path) -> None:
    model = GRPO(env=tiny_env(tiny_world))
    model.save(tmp_path / "agent.zip")
    loaded = GRPO.load(tmp_path / "agent.zip", env=tiny_env(tiny_world))
    for one in (model, loaded):
        one.learn(48)
    assert_same(model, loaded)


@pytest.fixture
def other_world(tiny_world: str, tmp_path: Path) -> str:
    """A tokenizer with half the tokens."""
    config = shared_world(tiny_world).config
    half = replace(config, tokens=8, prior=replace(config.prior, positions=8))
    return str(VaporTok(half).save_pretrained(tmp_path / "other"))


def test_another_geometry_is_refused(tiny_world: str, other_world: str, tmp_path: Path) -> None:
    model = GRPO(env=tiny_env(tiny_world), seed=0)
    model.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"Expected the geometry that the agent in .*agent\.zip was trained on"):
        GRPO.load(tmp_path / "agent.zip", env=tiny_env(other_world))
    other = GRPO(env=tiny_env(other_world), seed=0)
    with pytest.raises(ValueError, match="Expected weights of this agent's geometry"):
        other.set_parameters(str(tmp_path / "agent.zip"))


ENVIRONMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "id": ("MlpPolicy", lambda world: "CartPole-v1"),
    "environment": ("MlpPolicy", lambda world: gymnasium.make("CartPole-v1")),
    "taildrop": ("TaildropPolicy", lambda world: gymnasium.make(TAILDROP_ID, tokenizer=world, path_length=2)),
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_a_loaded_agent_keeps_its_groups(tiny_world: str, tmp_path: Path, kind: str) -> None:
    policy, make = ENVIRONMENTS[kind]
    whole, part, other = (GRPO(policy, make(tiny_world), group_size=3, scenes=2, seed=0) for _ in range(3))
    whole.learn(1)
    first = whole.num_timesteps
    whole.learn(first + 1, reset_num_timesteps=False)
    part.learn(1).save(tmp_path / "agent.zip")
    loaded = GRPO.load(tmp_path / "agent.zip", env=make(tiny_world))
    other.set_env(make(tiny_world))
    for agent in (loaded, other):
        assert (agent.group_size, agent.scenes, agent.n_envs) == (3, 2, 6)
    loaded.learn(first + 1, reset_num_timesteps=False)
    assert_same(whole, loaded)
