"""skrl's PPO over the vector environment.

Run: pip install skrl; python examples/skrl_ppo.py --steps 128
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import tyro
from skrl.agents.torch import ExperimentCfg
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer, SequentialTrainerCfg
from skrl.utils import set_seed
from torch import Tensor, nn

import vaportok_rl  # noqa: F401  (registers the environment)


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    steps: int = 32
    """Decisions per path to train for."""
    rollouts: int = 16
    """Decisions per path between updates."""
    num_envs: int = 16
    """Parallel paths."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def network(inputs: int, outputs: int) -> nn.Sequential:
    """A small MLP."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


class Policy(CategoricalMixin, Model):
    """Observations to the logits of all lengths."""

    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        CategoricalMixin.__init__(self)
        self.network = network(self.num_observations, self.num_actions)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """``[B, K]``."""
        return self.network(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    """Observations to the expected return."""

    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.network = network(self.num_observations, 1)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """``[B, 1]``."""
        return self.network(inputs["observations"]), {}


def main(arguments: Arguments) -> PPO:
    """Trains and returns the agent."""
    set_seed(arguments.seed)
    recorded = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        gymnasium.make_vec(
            "vaportok/Taildrop-v0",
            num_envs=arguments.num_envs,
            vectorization_mode="vector_entry_point",
            tokenizer=arguments.tokenizer,
            path_length=arguments.path_length,
            obs="complexity",
        )
    )
    env = wrap_env(recorded, wrapper="gymnasium", verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
    settings = PPO_CFG(
        rollouts=arguments.rollouts,
        learning_epochs=4,
        mini_batches=4,
        discount_factor=1.0,
        # An interval of 0 writes neither logs nor checkpoints; metrics are still tracked.
        experiment=ExperimentCfg(write_interval=0, checkpoint_interval=0),
    )
    agent = PPO(
        models={"policy": Policy(**spaces), "value": Value(**spaces)},
        memory=RandomMemory(memory_size=arguments.rollouts, num_envs=arguments.num_envs, device="cpu"),
        cfg=settings,
        **spaces,
    )
    schedule = SequentialTrainerCfg(
        timesteps=arguments.steps, headless=True, disable_progressbar=True, close_environment_at_exit=False
    )
    SequentialTrainer(env=env, agents=agent, cfg=schedule).train()
    env.close()
    for name, values in agent.tracking_data.items():
        if name.startswith("Loss"):
            print(f"{name}: " + ", ".join(f"{value:+.4f}" for value in values))
    print(f"path reward {np.mean(recorded.return_queue):.4f} over the last {len(recorded.return_queue)} paths")
    return agent


if __name__ == "__main__":
    main(tyro.cli(Arguments))
