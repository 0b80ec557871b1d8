"""Rounds of group sampling as a Stable-Baselines3 algorithm: environment, training loop, logging, saving."""

from __future__ import annotations

import io
import pathlib
import sys
import time
from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor

from vaportok_rl.agents.grpo.environments import as_group_env, group_env_of, group_size_of
from vaportok_rl.agents.grpo.episodes import OnStep, collect_episodes
from vaportok_rl.agents.grpo.logged import DecisionBar, length_metrics, reward_metrics, to_numbers
from vaportok_rl.agents.grpo.rollout import GroupRollout, SceneRollout, collect_scenes
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import TaildropVecEnv, TaildropVectorEnv
from vaportok_rl.runtime.ranks import Processes


class GroupAlgorithm(BaseAlgorithm):
    """Rounds of group sampling and training, with Stable-Baselines3's callbacks, logger and files.

    A round's samples depend only on the saved seed and round number. Loading therefore needs no random state, and an
    interrupted round is resampled identically. A subclass implements `train`; for the arguments see `GRPO`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "TaildropPolicy": TaildropPolicy,
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
    }
    policy: Any  # an ActorCriticPolicy; a TaildropPolicy if `parallel`

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        group_size: int | None,
        scenes: int | None,
        seed: int | None,
        device: torch.device | str,
        **settings: Any,
    ) -> None:
        self._group_size, self._scenes = group_size, scenes
        self._n_updates, self.rounds, self._round_start = 0, 0, 0
        self.reward_state: dict[str, Any] = {}
        self.stream_seed = int(torch.randint(2**62, ())) if seed is None else seed
        vec_env = None if env is None else as_group_env(env, group_size, scenes)
        if vec_env is not None and isinstance(vec_env.unwrapped, TaildropVecEnv) and device == "auto":
            device = str(group_env_of(vec_env).process.engine.device)
        super().__init__(policy, vec_env, learning_rate, seed=seed, device=device, support_multi_env=True, **settings)
        if vec_env is not None:
            # What `load` and `set_env` make their environments with.
            self._group_size, self._scenes = self.group_size, self.scenes

    @property
    def group_size(self) -> int:
        """G."""
        return group_size_of(self._environment, self._group_size)

    @property
    def scenes(self) -> int:
        """P, over all ranks."""
        return self._environment.num_envs // self.group_size

    @property
    def parallel(self) -> bool:
        """Whether all decisions of a path are sampled and scored at once instead of step by step.

        Wrappers other than a monitor may change observations or rewards, so they are stepped through.
        """
        bare = self._environment
        while isinstance(bare, VecMonitor):
            bare = bare.venv
        return isinstance(bare, TaildropVecEnv) and issubclass(self.policy_class, TaildropPolicy)

    @property
    def scores_every_length(self) -> bool:
        """Whether rollouts hold the outcomes of all K lengths."""
        return False

    @property
    def vector_env(self) -> TaildropVectorEnv:
        """The Gymnasium vector environment inside the `VecEnv`."""
        return group_env_of(self.env)

    @property
    def processes(self) -> Processes:
        """The ranks that split the scenes of a round."""
        return Processes.current()

    @property
    def _environment(self) -> VecEnv:
        if self.env is None:
            raise ValueError("Expected an environment to train on, got none; call set_env(env) or load(path, env=env).")
        return self.env

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # `load` and `set_env` call this too, so they accept what the constructor accepts.
        made = env if isinstance(env, VecEnv) else as_group_env(env, None, None)
        return BaseAlgorithm._wrap_env(made, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._restore_reward()
        self._setup_lr_schedule()
        super().set_random_seed(self.seed)
        taildrop = self.env is not None and isinstance(self.env.unwrapped, TaildropVecEnv)
        if taildrop and issubclass(self.policy_class, TaildropPolicy):
            self.policy_kwargs = {"tokenizer": self.vector_env.process.tokenizer} | self.policy_kwargs
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds all later samples; see `BaseAlgorithm.set_random_seed`."""
        super().set_random_seed(seed)
        if seed is not None:
            self.stream_seed, self.rounds = seed, 0

    def collect(self, on_step: OnStep = lambda steps, shown: True) -> GroupRollout | None:
        """Samples the paths of the current round with the current policy; a second call gives the same paths.

        Args:
            on_step: see `collect_episodes`; if `parallel`, it is called once per decision of a path, the last time with
                ``rollout`` too.

        Returns:
            The paths, or None if ``on_step`` stopped them.
        """
        self.policy.set_training_mode(False)
        if not self.parallel:
            environment, group = self._environment, self.group_size
            return collect_episodes(environment, group, self.policy, self.stream_seed, self.rounds, on_step)
        rollout = collect_scenes(
            self.vector_env, self.policy, self.stream_seed, self.rounds, self.processes, self.scores_every_length
        )
        # In the order of the vector environment's members.
        paid = rollout.rewards.per_decision.transpose(0, 1).flatten(0, 1).T.cpu().numpy()  # [L, P · G]
        returns, (length, copies) = rollout.rewards.total.T.reshape(-1).cpu().numpy(), paid.shape
        elapsed = round((time.time_ns() - self.start_time) / 1e9, 6)
        infos = [{"episode": {"r": float(value), "l": length, "t": elapsed}} for value in returns]
        for step, rewards in enumerate(paid):
            last = step == length - 1
            shown = {
                "infos": infos if last else [{} for _ in returns],
                "dones": np.full(copies, last),
                "rewards": rewards,
                "rollout": rollout if last else None,
            }
            if not on_step(copies, shown):
                return None
        return rollout

    @abstractmethod
    def train(self, rollout: GroupRollout) -> dict[str, Tensor]:
        """Updates the policy from a rollout; returns metrics to log."""

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "GRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Trains for at least ``total_timesteps`` decisions; see `BaseAlgorithm.learn`.

        With several ranks, a callback that stops training is needed on one rank only.

        Raises:
            ValueError: several ranks without a common seed, or in an environment that is stepped through.
        """
        self._join_processes()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        # An interrupted round is repeated, and its steps are not counted twice.
        self.num_timesteps = self._round_start = 0 if reset_num_timesteps else self._round_start
        callback.on_training_start(locals(), globals())
        iteration = 0
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            rollout = self.collect(partial(self._on_step, callback))
            if rollout is None:
                break
            callback.on_rollout_end()
            # Progress at the round's start: schedules that end at 0 are above 0 in the last round.
            self._update_current_progress_remaining(self._round_start, total_timesteps)
            learnt = self.train(rollout)
            if self.parallel:
                self.vector_env.process.advance(rollout.rewards, self.num_timesteps - self._round_start)
            self._finish_round()
            iteration += 1
            if log_interval and iteration % log_interval == 0:
                self._record(rollout, learnt, iteration)
                self.logger.dump(step=self.num_timesteps)
        callback.on_training_end()
        return self

    def _join_processes(self) -> None:
        if self.processes.count > 1:
            if self.seed is None or not self.parallel:
                raise ValueError(
                    f"Expected a seed and a TaildropVecEnv with TaildropPolicy on {self.processes.count} processes, "
                    f"got seed={self.seed} and {type(self._environment.unwrapped).__name__}; set seed=, or train in "
                    "one process."
                )
            self.processes.share(self.scenes)
            self.processes.broadcast(self.policy)

    def _on_step(self, callback: BaseCallback, steps: int, shown: dict[str, Any]) -> bool:
        self.num_timesteps += steps
        self._update_info_buffer(shown["infos"], shown["dones"])
        callback.update_locals(shown)
        return self.processes.all_agree(callback.on_step())

    def _finish_round(self) -> None:
        self.rounds += 1
        self._round_start = self.num_timesteps
        if isinstance(self._environment.unwrapped, TaildropVecEnv):
            self.reward_state = self.vector_env.process.reward.state.as_numbers()

    def _restore_reward(self) -> None:
        """Restores the saved state of the reward: schedules and the constraint's multiplier."""
        if self.reward_state and self.env is not None and isinstance(self.env.unwrapped, TaildropVecEnv):
            self.vector_env.process.reward.restore(self.reward_state)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        chosen = super()._init_callback(callback, progress_bar=False)
        if progress_bar:
            chosen = CallbackList([chosen, DecisionBar()])
            chosen.init_callback(self)
        return chosen

    def _record(self, rollout: GroupRollout, learnt: dict[str, Tensor], iteration: int) -> None:
        """Logs one round."""
        log = self.logger.record
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        log("time/iterations", iteration)
        log("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        log("time/time_elapsed", int(elapsed), exclude="tensorboard")
        log("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        log("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer or []]))
        log("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer or []]))
        metrics = reward_metrics(rollout) | {f"train/{name}": value for name, value in learnt.items()}
        if isinstance(rollout, SceneRollout):
            metrics |= length_metrics(rollout, self.vector_env.process.token_range)
        for name, value in to_numbers(metrics).items():
            log(name, value)
        log("train/n_updates", self._n_updates, exclude="tensorboard")
        log("train/learning_rate", self.policy.optimizer.param_groups[0]["lr"])

    def _excluded_save_params(self) -> list[str]:
        # The last observations, all paths' latents, would dominate the file and are never used.
        return [*super()._excluded_save_params(), "_last_obs", "_last_original_obs", "_last_episode_starts"]

    @classmethod
    def load(
        cls, path: str | pathlib.Path | io.BufferedIOBase, env: GymEnv | str | None = None, *args: Any, **kwargs: Any
    ) -> Self:
        """Loads what `save` wrote; see `BaseAlgorithm.load`.

        An environment that is no `VecEnv` is copied as often as in training.

        Raises:
            ValueError: the environment's spaces are not those of training.
        """
        if env is not None and not isinstance(env, VecEnv):
            trained = super().load(path, None, *args, **kwargs)
            env = as_group_env(env, *trained._copies_of(env))
            if isinstance(path, io.BufferedIOBase):
                path.seek(0)
        try:
            return super().load(path, env, *args, **kwargs)
        except ValueError as error:
            if "spaces do not match" not in str(error):
                raise
            raise ValueError(
                f"Expected the geometry that the agent in {path} was trained on, got another ({error}); make the "
                "environment with the agent's tokenizer and obs."
            ) from error

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """Trains on another environment from now on; one that is no `VecEnv` is copied as often as the last."""
        super().set_env(as_group_env(env, *self._copies_of(env)), force_reset)
        self._restore_reward()

    def _copies_of(self, env: Any) -> tuple[int | None, int | None]:
        """G and P of the copies to make; None for a `VecEnv`, which has its own."""
        return (None, None) if isinstance(env, VecEnv) else (self._group_size, self._scenes)

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """Loads weights; see `BaseAlgorithm.set_parameters`.

        Raises:
            ValueError: their shapes do not fit.
        """
        try:
            super().set_parameters(load_path_or_dict, exact_match, device)
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ValueError(
                f"Expected weights of this agent's geometry ({self.observation_space} to {self.action_space}), got "
                f"others ({str(error).splitlines()[-1].strip()}); load them into an agent with their tokenizer."
            ) from error
