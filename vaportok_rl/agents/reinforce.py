"""REINFORCE as a Stable-Baselines3 algorithm: the plain policy-gradient baseline."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from vaportok_rl.agents.policy import TaildropPolicy

Self = TypeVar("Self", bound="REINFORCE")


def episode_returns(rewards: NDArray[np.float32], episode_starts: NDArray[np.float32]) -> NDArray[np.float32]:
    """The undiscounted return of the episode that each step belongs to.

    Args:
        rewards: ``[T, N]``, T steps of N environments, whole episodes.
        episode_starts: ``[T, N]``, 1 where a step is the first of its episode.

    Returns:
        ``float32 [T, N]``, equal for all steps of an episode.

    Raises:
        ValueError: an environment's first step is not the first of an episode.
    """
    starts = episode_starts.astype(bool)
    if not starts[0].all():
        raise ValueError(
            f"Expected rollouts of whole episodes, got {int((~starts[0]).sum())} of {starts.shape[1]} environments in "
            "the middle of one; set n_steps to a multiple of the episode length."
        )
    returns = np.empty_like(rewards)
    for env in range(rewards.shape[1]):
        first = np.flatnonzero(starts[:, env])
        lengths = np.diff(first, append=len(rewards))
        returns[:, env] = np.repeat(np.add.reduceat(rewards[:, env], first), lengths)
    return returns


class REINFORCE(OnPolicyAlgorithm):
    """Episodic REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) with a moving-average baseline.

    Each rollout takes one gradient step along ``(R - b) · Σ_t ∇ log π(a_t)``: R is the undiscounted return of the
    episode, b the exponential moving average of earlier rollouts' mean returns (for the first rollout, its own mean).
    Nothing is clipped, normalised or regularised, and no critic is trained.

    Args:
        policy: ``"TaildropPolicy"``, ``"MlpPolicy"``, or a class.
        env: any environment with discrete actions and episodes of one length.
        learning_rate: of the policy's optimizer (Adam); a number or a schedule of the remaining progress.
        n_steps: steps per environment and rollout; a multiple of the episode length.
        baseline_decay: decay of the moving average per rollout, in [0, 1).
        **settings: further arguments of `OnPolicyAlgorithm`: ``policy_kwargs``, ``seed``, ``device``, …

    Raises:
        ValueError: the decay is outside [0, 1); when training, a rollout has incomplete episodes.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "TaildropPolicy": TaildropPolicy,
        "MlpPolicy": ActorCriticPolicy,
    }
    policy: ActorCriticPolicy

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 8,
        *,
        baseline_decay: float = 0.9,
        **settings: Any,
    ) -> None:
        if not 0 <= baseline_decay < 1:
            raise ValueError(f"Expected baseline_decay in [0, 1), got {baseline_decay}; 0.9 remembers ten rollouts.")
        self.baseline_decay = baseline_decay
        self.baseline: float | None = None
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps,
            # Returns are summed below, undiscounted. Stable-Baselines3 uses gamma only at time limits, where it would
            # add gamma times the value of the untrained critic.
            gamma=0.0,
            gae_lambda=1.0,
            ent_coef=0.0,
            vf_coef=0.0,
            max_grad_norm=float("inf"),
            use_sde=False,
            sde_sample_freq=-1,
            supported_action_spaces=(spaces.Discrete,),
            **settings,
        )

    def train(self) -> None:
        """Takes one step along the policy gradient of the rollout just collected.

        Raises:
            ValueError: the rollout does not hold whole episodes.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        buffer = self.rollout_buffer
        if not np.all(self._last_episode_starts):
            raise ValueError(
                f"Expected rollouts of whole episodes, got unfinished ones after n_steps={self.n_steps}; set n_steps "
                "to a multiple of the episode length."
            )
        returns = episode_returns(buffer.rewards, buffer.episode_starts)
        baseline = float(returns.mean()) if self.baseline is None else self.baseline
        # The buffer shuffles these together with the actions.
        buffer.advantages = returns - np.float32(baseline)
        for data in buffer.get(batch_size=None):
            _, log_prob, _ = self.policy.evaluate_actions(data.observations, data.actions.long().flatten())
            loss = -(data.advantages * log_prob).mean()
            self.policy.optimizer.zero_grad()
            loss.backward()
            self.policy.optimizer.step()
        self.baseline = self.baseline_decay * baseline + (1 - self.baseline_decay) * float(returns.mean())
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/policy_loss", loss.item())
        self.logger.record("train/baseline", baseline)

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "REINFORCE",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """See `OnPolicyAlgorithm.learn`."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
