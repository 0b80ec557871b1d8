"""Agents of other algorithms choose the same on a whole scene as step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.agents import GRPO, build_length_policy
from vaportok_rl.agents.lengths.trained import ALGORITHMS
from vaportok_rl.envs import TaildropEnv, TaildropProcess, TaildropVecEnv


def environment(world: str, **settings: Any) -> TaildropVecEnv:
    return TaildropVecEnv(2, tokenizer=world, path_length=3, **settings)


def stir(agent: BaseAlgorithm) -> BaseAlgorithm:
    """Fresh policies are almost uniform; large weights make their choices depend on the observation."""
    with torch.no_grad():
        for seed, parameter in enumerate(agent.policy.parameters()):
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return agent


def stepped(agent: BaseAlgorithm, env: TaildropEnv, seed: int, masked: bool = False) -> list[int]:
    """Lengths kept when the agent steps the environment."""
    observation, _ = env.reset(seed=seed)
    kept, state, ended = [], None, False
    while not ended:
        masks = {"action_masks": env.action_masks()} if masked else {}
        action, state = agent.predict(
            observation, state=state, episode_start=np.array([not kept]), deterministic=True, **masks
        )
        observation, _, ended, _, info = env.step(int(action))
        kept.append(int(info["n_tokens"]))
    return kept


def chosen(spec: str, env: TaildropEnv, seed: int) -> tuple[list[int], torch.Tensor]:
    """Lengths chosen at once, on a process that observes something else."""
    process = TaildropProcess(**{**env.settings, "obs": "codes", "flatten_obs": False})
    env.reset(seed=seed)
    scene = env._walk.scene
    choice = build_length_policy(spec, process, trust_archives=True)(scene, torch.Generator())
    return process.token_range.clip_paths(choice.n_tokens)[0].tolist(), choice.log_prob[0]


CASES: list[tuple[str, type[BaseAlgorithm], str, dict[str, Any], dict[str, Any]]] = [
    ("ppo", PPO, "MlpPolicy", {"obs": "complexity"}, {}),
    ("ppo", PPO, "MlpPolicy", {"obs": "clip", "flatten_obs": True}, {}),
    ("ppo", PPO, "MultiInputPolicy", {"obs": ("complexity", "latents")}, {}),
    ("a2c", A2C, "MlpPolicy", {"obs": "codes"}, {}),
    ("dqn", DQN, "MlpPolicy", {"obs": "codes"}, {"buffer_size": 10, "policy_kwargs": {"activation_fn": torch.nn.Tanh}}),
]


@pytest.mark.parametrize(("name", "algorithm", "policy", "observed", "settings"), CASES)
def test_a_scene_at_once_is_what_stepping_does(
    tiny_world: str,
    tmp_path: Path,
    name: str,
    algorithm: Any,
    policy: str,
    observed: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    agent = stir(algorithm(policy, environment(tiny_world, **observed), seed=0, device="cpu", **settings))
    agent.save(tmp_path / "agent.zip")
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, **observed)
    everything = set()
    for seed in range(4):
        lengths, log_prob = chosen(f"{name}:{tmp_path / 'agent.zip'}", env, seed)
        assert lengths == stepped(agent, env, seed)
        everything |= set(lengths)
        if name == "dqn":
            assert log_prob.isnan().all()
            continue
        observation, _ = env.reset(seed=seed)
        seen, _ = agent.policy.obs_to_tensor(observation)
        _, expected, _ = agent.policy.evaluate_actions(seen, torch.tensor([lengths[0] - 1]))
        assert log_prob[0].item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(everything) > 1


@pytest.mark.parametrize(("name", "policy"), [("maskable-ppo", "MlpPolicy"), ("recurrent-ppo", "MlpLstmPolicy")])
def test_masks_and_hidden_states(tiny_world: str, tmp_path: Path, name: str, policy: str) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    limits: dict[str, Any] = {"obs": "complexity", "min_tokens": 2, "token_budget": 12}
    algorithm = getattr(contrib, ALGORITHMS[name][1])
    agent = stir(algorithm(policy, environment(tiny_world, **limits), seed=0, device="cpu"))
    agent.save(tmp_path / "agent.zip")
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, **limits)
    for seed in range(4):
        lengths, log_prob = chosen(f"{name}:{tmp_path}", env, seed)
        assert lengths == stepped(agent, env, seed, masked=name == "maskable-ppo")
        assert sum(lengths) <= 12
        assert bool(log_prob.isnan().all()) == (name == "recurrent-ppo")


def test_the_wrong_algorithm_is_named(tiny_world: str, tmp_path: Path) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    PPO("MlpPolicy", environment(tiny_world, obs="complexity"), device="cpu").save(tmp_path / "ppo.zip")
    GRPO(env=TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=3)).save(tmp_path / "grpo.zip")
    with pytest.raises(ValueError, match=r"Expected an agent that GRPO saved .* for example ppo:"):
        build_length_policy(str(tmp_path / "ppo.zip"), process, trust_archives=True)
    with pytest.raises(ValueError, match=r"Expected an agent that DQN saved .*; name the algorithm"):
        build_length_policy(f"dqn:{tmp_path / 'ppo.zip'}", process, trust_archives=True)


def test_an_agent_of_another_world_is_refused(tiny_world: str, tmp_path: Path) -> None:
    for name, settings in (("other", {"obs": "latents"}), ("fewer", {"obs": "complexity"})):
        env = environment(tiny_world, **settings)
        PPO("MlpPolicy", env, device="cpu").save(tmp_path / name)
    nano = TaildropProcess(path_length=3)
    with pytest.raises(ValueError, match="Expected an agent that observes latents, complexity, codes, clip of 'nano'"):
        build_length_policy(f"ppo:{tmp_path / 'other.zip'}", nano, trust_archives=True)
    with pytest.raises(ValueError, match=r"Expected an agent with Discrete\(64\) actions, got Discrete\(16\)"):
        build_length_policy(f"ppo:{tmp_path / 'fewer.zip'}", nano, trust_archives=True)
