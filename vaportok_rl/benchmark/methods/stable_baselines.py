"""REINFORCE, A2C, PPO, MaskablePPO and DQN: Stable-Baselines3's interface on the tensor face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from vaportok_rl.agents.reinforce import REINFORCE
from vaportok_rl.benchmark.arena import Act
from vaportok_rl.benchmark.methods.method import Run
from vaportok_rl.envs import State, TensorEnv
from vaportok_rl.envs.tensor.faces import TensorVecEnv
from vaportok_rl.runtime.messages import install_extra

_PATHS = 128
_NETWORK = {"net_arch": [64]}


class _Follow(BaseCallback):
    """Adds points to a run's learning curve."""

    def __init__(self, run: Run, act: Act) -> None:
        super().__init__()
        self.run, self.act = run, act

    def _on_rollout_start(self) -> None:
        self.run.measure(self.num_timesteps, self.act)

    def _on_step(self) -> bool:
        return True


def greedy(agent: Any) -> Act:
    """The most probable actions of an agent, or those of the highest value; only allowed ones."""

    @torch.no_grad()
    def act(env: TensorEnv, state: State) -> Tensor:
        seen = env.observe(state).to(agent.device)
        if isinstance(agent, DQN):
            preferences: Tensor = agent.q_net(seen)
        else:
            preferences = agent.policy.get_distribution(seen).distribution.logits
        return preferences.to(env.device).masked_fill(~env.action_masks(state), -torch.inf).argmax(-1)

    return act


def learnt(make: Callable[..., BaseAlgorithm], paths: int = _PATHS, **settings: Any) -> Callable[[Run], Act]:
    """A method of one of Stable-Baselines3's algorithms.

    Args:
        make: its class.
        paths: environments in parallel.
        **settings: its arguments; a rollout is one path per environment.
    """

    def learn(run: Run) -> Act:
        env = run.arena.env("train")
        venv = TensorVecEnv(env, paths, run.seed)
        if make is not DQN:
            settings["n_steps"] = env.path_length
        agent = make(
            "MlpPolicy", venv, gamma=1.0, seed=run.seed, device="cpu", policy_kwargs=dict(_NETWORK), **settings
        )
        act = greedy(agent)
        agent.learn(run.decisions, callback=_Follow(run, act))
        return act

    return learn


def reinforce(run: Run) -> Act:
    """REINFORCE with a moving-average baseline."""
    env = run.arena.env("train")
    venv = TensorVecEnv(env, _PATHS, run.seed)
    agent = REINFORCE(
        "MlpPolicy", venv, 1e-3, n_steps=env.path_length, seed=run.seed, device="cpu", policy_kwargs=dict(_NETWORK)
    )
    act = greedy(agent)
    agent.learn(run.decisions, callback=_Follow(run, act))
    return act


a2c = learnt(A2C, learning_rate=1e-3, gae_lambda=1.0, normalize_advantage=True, use_rms_prop=False)
ppo = learnt(PPO, learning_rate=1e-3, gae_lambda=1.0, batch_size=256, n_epochs=4)
dqn = learnt(
    DQN,
    paths=16,
    learning_rate=1e-3,
    learning_starts=1024,
    train_freq=8,
    gradient_steps=16,
    exploration_fraction=0.5,
    target_update_interval=1024,
    batch_size=128,
)


def maskable_ppo(run: Run) -> Act:
    """PPO with the action masks; needs sb3-contrib.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        from sb3_contrib import MaskablePPO
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected sb3-contrib for maskable-ppo, which is not installed; {install_extra('examples')}."
        ) from error
    return learnt(MaskablePPO, learning_rate=1e-3, gae_lambda=1.0, batch_size=256, n_epochs=4)(run)
