"""GRPO on CartPole-v1, without a critic: it also works outside video.

A group is eight copies of CartPole reset to one seed. Each plays a whole episode; the advantage of its decisions is the
episode's return relative to its group. CartPole counts as solved from a mean return of 475.

Run: python examples/grpo_cartpole.py --seed 0
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from vaportok_rl.agents import GRPO


@dataclass(frozen=True)
class Arguments:
    """GRPO on CartPole-v1."""

    timesteps: int = 180_000
    """Environment steps to train for; the last round may overshoot by 32 episodes of 500 steps."""
    episodes: int = 100
    """Episodes to evaluate on, with starts that training never saw."""
    seed: int = 0
    """Seed of all random numbers."""


def main(arguments: Arguments) -> tuple[float, int]:
    """Trains; returns the mean return of the most probable actions and the environment steps taken."""
    agent = GRPO(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=lambda progress_remaining: 2e-3 * progress_remaining,
        group_size=8,
        scenes=4,
        n_epochs=4,
        kl_coef=0.0,
        seed=arguments.seed,
        device="cpu",
    )
    agent.learn(arguments.timesteps)
    copies = make_vec_env("CartPole-v1", n_envs=10, seed=1_000_000)
    mean, _ = evaluate_policy(agent, copies, n_eval_episodes=arguments.episodes)
    print(f"seed {arguments.seed}: mean return {mean:.1f} after {agent.num_timesteps:,} steps")
    return float(mean), agent.num_timesteps  # type: ignore[arg-type]  # one number unless episodes are asked for


if __name__ == "__main__":
    main(tyro.cli(Arguments))
