"""TorchRL: its `GymEnv` over one environment or `GymWrapper` over the vector environment, a collector, PPO's loss.

Run: pip install torchrl; python examples/torchrl_collector.py --num-envs 1

TorchRL resets environments itself, so the vector environment is made with `autoreset_mode="Disabled"`: then
``next.observation`` of the last decision is the episode's last observation. (TorchRL cannot read nested dictionaries in
SAME_STEP infos, such as our `reward_terms`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import torch
import tyro
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, GymEnv, GymWrapper
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import vaportok_rl  # noqa: F401  (registers the environment)


@dataclass(frozen=True)
class Arguments:
    """PPO on vaportok/Taildrop-v0."""

    num_envs: int = 16
    """Parallel paths; 1 uses the scalar environment."""
    batches: int = 2
    """Batches to collect, each followed by an update."""
    frames_per_batch: int = 256
    """Decisions per batch, over all paths."""
    path_length: int = 8
    """Clips per path."""
    tokenizer: str = "nano"
    """The frozen tokenizer."""
    seed: int = 0
    """Seed of all random numbers."""
    epochs: int = 4
    learning_rate: float = 1e-3


class Training(NamedTuple):
    """Results of training: the last batch, and the mean loss and mean reward of each."""

    batch: TensorDictBase
    losses: list[float]
    rewards: list[float]


def make_env(arguments: Arguments) -> EnvBase:
    """The scalar environment, of batch size ``[]``, or the vector environment, of batch size ``[num_envs]``."""
    settings: dict[str, Any] = {
        "tokenizer": arguments.tokenizer,
        "path_length": arguments.path_length,
        "obs": "complexity",
    }
    if arguments.num_envs == 1:
        return GymEnv("vaportok/Taildrop-v0", categorical_action_encoding=True, **settings)
    envs = gymnasium.make_vec(
        "vaportok/Taildrop-v0",
        num_envs=arguments.num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        **settings,
    )
    return GymWrapper(envs, categorical_action_encoding=True)


def main(arguments: Arguments) -> Training:
    """Collects and updates."""
    torch.manual_seed(arguments.seed)
    env = make_env(arguments)
    env.set_seed(arguments.seed)
    inputs, actions = env.observation_spec["observation"].shape[-1], int(env.action_spec.space.n)
    network = TensorDictModule(MLP(inputs, actions, num_cells=[64, 64]), in_keys=["observation"], out_keys=["logits"])
    actor = ProbabilisticActor(
        network, in_keys=["logits"], spec=env.action_spec, distribution_class=Categorical, return_log_prob=True
    )
    critic = ValueOperator(MLP(inputs, 1, num_cells=[64, 64]), in_keys=["observation"])
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    objective = ClipPPOLoss(actor, critic, normalize_advantage=True)
    optimiser = torch.optim.Adam(objective.parameters(), lr=arguments.learning_rate)
    collector = Collector(
        env,
        actor,
        frames_per_batch=arguments.frames_per_batch,
        total_frames=arguments.batches * arguments.frames_per_batch,
        # The policy is stateless and needs no environment transform.
        auto_register_policy_transforms=False,
    )
    losses, rewards = [], []
    for batch in collector:
        with torch.no_grad():
            advantage(batch)
        total = 0.0
        for _ in range(arguments.epochs):
            terms = objective(batch.reshape(-1))
            loss = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / arguments.epochs)
        rewards.append(batch["next", "reward"].mean().item() * arguments.path_length)
        print(f"batch {len(losses)}: {tuple(batch.shape)}, loss {losses[-1]:+.4f}, path reward {rewards[-1]:.4f}")
    collector.shutdown()
    return Training(batch, losses, rewards)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
