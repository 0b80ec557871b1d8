"""Gives on-policy algorithms of Stable-Baselines3 the same scenes per round as GRPO."""

from __future__ import annotations

from typing import cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from vaportok_rl.agents.grpo.environments import group_env_of
from vaportok_rl.runtime.seeds import derive_seed


class SeededRounds(BaseCallback):
    """Makes each rollout a function of the seed, its number and the weights, as in GRPO.

    In round r, group p gets the scene of GRPO's round r and group p. The global generators of torch and NumPy are
    seeded each round, so resuming needs no random state.

    Args:
        seed: of the run.

    Raises:
        ValueError: at the start of training, if a rollout is not one path per environment.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def _on_training_start(self) -> None:
        agent = cast(OnPolicyAlgorithm, self.model)
        process = group_env_of(agent.get_env()).process
        if agent.n_steps != process.path_length:
            raise ValueError(
                f"Expected n_steps={process.path_length}, the path length, got {agent.n_steps}; a round is one path "
                "per environment."
            )
        self._seed_scenes(self._round)
        agent._last_obs = agent.env.reset()  # type: ignore[union-attr,assignment]
        agent._last_episode_starts = np.ones(agent.n_envs, dtype=bool)

    @property
    def _round(self) -> int:
        agent = cast(OnPolicyAlgorithm, self.model)
        return agent.num_timesteps // (agent.n_steps * agent.n_envs)

    def _seed_scenes(self, number: int) -> None:
        """Seeds the groups' next scenes."""
        env = group_env_of(self.model.get_env())
        seeds = [derive_seed("scene", self.seed, number, group) for group in range(env.groups)]
        env.seed_groups([seed for seed in seeds for _ in range(env.group_size)])

    def _on_rollout_start(self) -> None:
        # This round's paths have begun; environments draw the next scenes as soon as they are finished.
        self._seed_scenes(self._round + 1)
        set_random_seed(derive_seed("rollout", self.seed, self._round) % 2**32)

    def _on_step(self) -> bool:
        return True
