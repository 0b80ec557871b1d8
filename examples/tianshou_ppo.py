"""Tianshou's collector and PPO.

Run: pip install tianshou; python examples/tianshou_ppo.py --num-envs 4
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gymnasium
import torch
import tyro
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    epochs: int = 2
    """Rounds of sampling and training."""
    decisions: int = 256
    """Of each round, over all paths."""
    num_envs: int = 4
    """Parallel paths."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""


def main(arguments: Arguments) -> tuple[CollectStats, VectorReplayBuffer]:
    """Trains; returns Tianshou's statistics of a last path of every environment, and its decisions."""
    torch.manual_seed(arguments.seed)
    make = partial(
        gymnasium.make,
        "vaportok_rl:vaportok/Taildrop-v0",
        tokenizer=arguments.tokenizer,
        path_length=arguments.path_length,
        obs="complexity",
    )
    environments = DummyVectorEnv([make] * arguments.num_envs)
    environments.seed(arguments.seed)
    observations, actions = environments.observation_space[0], environments.action_space[0]
    body = Net(state_shape=observations.shape, hidden_sizes=(64, 64), activation=torch.nn.Tanh)
    actor = DiscreteActor(preprocess_net=body, action_shape=actions.n, softmax_output=False)
    algorithm = PPO(
        policy=DiscreteActorPolicy(actor=actor, action_space=actions),
        critic=DiscreteCritic(preprocess_net=body),
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=1.0,
    )
    buffer = VectorReplayBuffer(arguments.decisions, arguments.num_envs)
    collector = Collector(algorithm, environments, buffer)
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=arguments.epochs,
            epoch_num_steps=arguments.decisions,
            collection_step_num_env_steps=arguments.decisions,
            update_step_num_repetitions=4,
            show_progress=False,
        )
    )
    found = collector.collect(n_episode=arguments.num_envs, reset_before_collect=True)
    print(f"path reward {found.returns.mean():.4f}")
    return found, buffer


if __name__ == "__main__":
    main(tyro.cli(Arguments))
