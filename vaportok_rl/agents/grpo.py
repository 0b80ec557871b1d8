"""Group Relative Policy Optimisation as a Stable-Baselines3 algorithm, on the parallel tensor face."""

from __future__ import annotations

import copy
import math
import sys
import time
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from vaportok_rl.agents.group_rollout import GroupRollout, collect_groups
from vaportok_rl.agents.grpo_env import as_group_env, group_env_of
from vaportok_rl.agents.objective import clipped_surrogate, entropy, group_advantage, kl_exact
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import TaildropVectorEnv
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError

Credit = Literal["path", "clip"]


class GRPO(BaseAlgorithm):
    """GRPO (DeepSeekMath, arXiv 2402.03300) with the VaporTok supplement's defaults.

    Each iteration draws P scenes, samples G paths through each, scores them at once, standardises the path rewards
    within each group, and takes μ clipped steps with a KL penalty to the initial policy. There is no critic.

    Args:
        policy: ``"TaildropPolicy"`` or the class.
        env: a `TaildropVecEnv` with ``group_size ≥ 2`` (monitored or not), a `TaildropEnv`, or its id. From the last
            two a vector environment of ``scenes × group_size`` paths with the same arguments is made.
        learning_rate: Adam's; a number or a schedule of the remaining progress.
        group_size: G; 8 by default. With a `TaildropVecEnv`, its own.
        scenes: P, scenes an iteration; 16 by default. With a `TaildropVecEnv`, its own.
        n_epochs: μ, passes over the sampled paths.
        batch_size: scenes a gradient step; all P by default.
        kl_coef: β, weight of the exact KL(π ‖ π_reference).
        clip_range: ε_low.
        clip_range_high: ε_high (clip-higher: DAPO, arXiv 2503.14476).
        credit: ``"path"`` gives every decision of a path the path's advantage (the supplement's reading); ``"clip"``
            compares each decision with its group's decisions on the same clip, path terms shared.
        advantage_eps: added to the standard deviation of a group's rewards.
        ent_coef: weight of an entropy bonus.
        max_grad_norm: gradient clipping.
        stats_window_size: path rewards averaged for ``rollout/ep_rew_mean``.
        tensorboard_log: folder for TensorBoard events.
        policy_kwargs: arguments of the policy; ``tokenizer`` is filled in from the environment.
        verbose: 0 none, 1 info.
        seed: of the policy's draws and the scenes.
        device: of the policy; ``"auto"`` follows the environment's world.
        _init_setup_model: whether to build the networks at once.

    Raises:
        ValueError: a group of fewer than two paths, an unknown credit, or settings that contradict the environment.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TaildropPolicy": TaildropPolicy}
    policy: TaildropPolicy
    reference_policy: TaildropPolicy

    def __init__(
        self,
        policy: str | type[TaildropPolicy] = "TaildropPolicy",
        env: GymEnv | str | None = "vaportok/Taildrop-v0",
        learning_rate: float | Schedule = 3e-4,
        *,
        group_size: int | None = None,
        scenes: int | None = None,
        n_epochs: int = 2,
        batch_size: int | None = None,
        kl_coef: float = 0.1,
        clip_range: float = 0.2,
        clip_range_high: float = 0.28,
        credit: Credit = "path",
        advantage_eps: float = 1e-4,
        ent_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if credit not in get_args(Credit):
            raise ValueError(f"Expected credit 'path' or 'clip', got {credit!r}; pass one of the two.")
        if n_epochs < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(f"Expected n_epochs ≥ 1 and batch_size ≥ 1, got {n_epochs} and {batch_size}; raise them.")
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.kl_coef = kl_coef
        self.clip_range = clip_range
        self.clip_range_high = clip_range_high
        self.credit: Credit = credit
        self.advantage_eps = advantage_eps
        self.ent_coef = ent_coef
        self.max_grad_norm = max_grad_norm
        self._n_updates = 0
        vec_env = None if env is None else as_group_env(env, group_size, scenes)
        policy_kwargs = dict(policy_kwargs or {})
        if vec_env is not None:
            world = group_env_of(vec_env).process
            policy_kwargs.setdefault("tokenizer", world.tokenizer)
            device = str(world.engine.world.device) if device == "auto" else device
        super().__init__(
            policy=policy,
            env=vec_env,
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        if _init_setup_model:
            self._setup_model()

    @property
    def vector_env(self) -> TaildropVectorEnv:
        """The Gymnasium vector environment whose process, groups and seeds are used."""
        return group_env_of(self.get_env())

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # Also reached by `load` and `set_env`, which then take whatever the constructor takes.
        return BaseAlgorithm._wrap_env(as_group_env(env, None, None), verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self.reference_policy = copy.deepcopy(self.policy)
        self.reference_policy.set_training_mode(False)
        self.reference_policy.requires_grad_(False)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds torch, NumPy and the groups' scene orders."""
        super().set_random_seed(seed)
        if seed is not None and self.env is not None:
            self.vector_env.seed_groups(seed)

    def collect(self) -> GroupRollout:
        """Samples and scores one round of paths with the current policy."""
        self.policy.set_training_mode(False)
        return collect_groups(self.vector_env, self.policy)

    def advantages(self, rollout: GroupRollout) -> Tensor:
        """Group-relative advantage of every decision: ``float32 [G, P, L]``."""
        if self.credit == "clip":
            return group_advantage(rollout.rewards.by_clip, self.advantage_eps)
        advantage = group_advantage(rollout.rewards.total, self.advantage_eps)
        return advantage[..., None].expand_as(rollout.actions)

    def loss(self, rollout: GroupRollout, advantage: Tensor, paths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective on some scenes, negated.

        Args:
            rollout: what was sampled.
            advantage: ``[G, P, L]``.
            paths: ``int64 [P']``, the scenes of this gradient step.

        Returns:
            The scalar loss and detached scalars to log.
        """
        latents = rollout.scene.latents[paths]
        log_p = self.policy.length_log_probs(latents)  # [P', L, K]
        with torch.no_grad():
            reference = self.reference_policy.length_log_probs(latents)
        actions = rollout.actions[:, paths]  # [G, P', L]
        log_prob = log_p.expand(actions.shape[0], -1, -1, -1).gather(-1, actions[..., None]).squeeze(-1)
        surrogate = clipped_surrogate(
            log_prob, rollout.old_log_prob[:, paths], advantage[:, paths], self.clip_range, self.clip_range_high
        )
        kl = kl_exact(log_p, reference).mean()
        spread = entropy(log_p).mean()
        policy_loss = -surrogate.objective.mean()
        loss = policy_loss + self.kl_coef * kl - self.ent_coef * spread
        low, high = surrogate.clipped_low.float().mean(), surrogate.clipped_high.float().mean()
        log_ratio = (log_prob - rollout.old_log_prob[:, paths]).detach()
        return loss, {
            "loss": loss.detach(),
            "policy_gradient_loss": policy_loss.detach(),
            "kl": kl.detach(),
            "entropy": spread.detach(),
            "entropy_loss": -spread.detach(),
            "approx_kl": (torch.expm1(log_ratio) - log_ratio).mean(),
            "clip_fraction": low + high,
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
        }

    def train(self, rollout: GroupRollout) -> dict[str, Tensor]:
        """Takes μ passes of clipped steps over a rollout; returns the mean of the logged scalars.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite; that step was not taken.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        advantage = self.advantages(rollout)
        scenes = rollout.actions.shape[1]
        size = scenes if self.batch_size is None else min(self.batch_size, scenes)
        history: list[dict[str, Tensor]] = []
        for _ in range(self.n_epochs):
            order = torch.randperm(scenes, device=advantage.device) if size < scenes else None
            for start in range(0, scenes, size):
                paths = torch.arange(scenes, device=advantage.device) if order is None else order[start : start + size]
                loss, logged = self.loss(rollout, advantage, paths)
                self.policy.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
                    raise NonFiniteLossError(
                        f"Expected a finite loss, got {loss.item()} (gradient norm {norm.item()}) after "
                        f"{self._n_updates} updates; the step was not taken. Look for a reward term that returns NaN, "
                        "or lower learning_rate."
                    )
                self.policy.optimizer.step()
                self._n_updates += 1
                history.append(logged)
        return {name: torch.stack([entry[name] for entry in history]).mean() for name in history[0]}

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "GRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> GRPO:
        """Trains for at least ``total_timesteps`` decisions; see `BaseAlgorithm.learn`."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        iteration = 0
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            rollout = self.collect()
            self.num_timesteps += rollout.actions.numel()
            infos, dones = self._path_infos(rollout)
            rewards = rollout.rewards.total.T.reshape(-1).cpu().numpy()
            self._update_info_buffer(infos, dones)
            callback.update_locals(locals())
            if not callback.on_step():
                break
            callback.on_rollout_end()
            iteration += 1
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            logged = self.train(rollout)
            if log_interval and iteration % log_interval == 0:
                self._record(rollout, logged, iteration)
                self.logger.dump(step=self.num_timesteps)
        callback.on_training_end()
        return self

    def _path_infos(self, rollout: GroupRollout) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Monitor-style episode records, one a path, in the order of the vector environment's members."""
        returns = rollout.rewards.total.T.reshape(-1).tolist()
        length = rollout.actions.shape[2]
        elapsed = (time.time_ns() - self.start_time) / 1e9
        infos = [{"episode": {"r": value, "l": length, "t": round(elapsed, 6)}} for value in returns]
        return infos, np.ones(len(returns), dtype=bool)

    def _record(self, rollout: GroupRollout, logged: dict[str, Tensor], iteration: int) -> None:
        """Logs one iteration; the names follow Stable-Baselines3 and TRL."""
        log = self.logger.record
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        log("time/iterations", iteration)
        log("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        log("time/time_elapsed", int(elapsed), exclude="tensorboard")
        log("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        log("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer or []]))
        log("rollout/ep_len_mean", rollout.actions.shape[2])
        total = rollout.rewards.total
        for name, value in rollout.rewards.terms.items():
            log(f"rewards/{name}/mean", value.mean().item())
            log(f"rewards/{name}/std", value.std().item())
        log("rewards/total/mean", total.mean().item())
        log("rewards/reward_std", total.std(0).mean().item())
        log("rewards/frac_reward_zero_std", (total == total[:1]).all(0).float().mean().item())
        lengths = rollout.outcome.n_tokens
        tokens = rollout.outcome.tokens
        shares = torch.bincount(lengths.flatten() - 1, minlength=tokens).float() / lengths.numel()
        log("lengths/mean_tokens", lengths.float().mean().item())
        log("lengths/share_smallest", shares[0].item())
        log("lengths/share_largest", shares[-1].item())
        log("lengths/histogram_entropy", -torch.special.xlogy(shares, shares).sum().item() / math.log(tokens))
        log("quality/mse", rollout.outcome.mse.mean().item())
        log("quality/psnr", rollout.outcome.psnr.mean().item())
        for name, value in logged.items():
            log(f"train/{name}", value.item())
        log("train/n_updates", self._n_updates, exclude="tensorboard")
        log("train/learning_rate", self.policy.optimizer.param_groups[0]["lr"])

    def _excluded_save_params(self) -> list[str]:
        # The last observations are the latents of every path: by far the largest thing in the file, and never used.
        return [*super()._excluded_save_params(), "_last_obs", "_last_original_obs", "_last_episode_starts"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        # What is not declared here would come back from a load as a freshly initialised network.
        return ["policy", "policy.optimizer", "reference_policy"], []
