"""Group Relative Policy Optimisation as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from vaportok_rl.agents.grpo.credit import Credit, CreditRule, RewardAggregation
from vaportok_rl.agents.grpo.options import check_clip, check_options, check_steps, value_of
from vaportok_rl.agents.grpo.rollout import GroupRollout, SceneRollout
from vaportok_rl.agents.grpo.rounds import GroupAlgorithm
from vaportok_rl.agents.objective import ScaleRewards, clipped_surrogate, entropy, kl_exact, kl_k3
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError


class GRPO(GroupAlgorithm):
    """GRPO (DeepSeekMath, arXiv 2402.03300) with the VaporTok supplement's defaults.

    Each round draws P scenes, samples G paths through each, standardises the path rewards within each group, and takes
    μ clipped passes with a KL penalty to the initial policy. There is no critic. Lengths of clips are sampled and
    scored at once, on the device; of any other environment with `Discrete` actions, a group is G copies reset to one
    seed, which play whole episodes, and every decision of an episode is credited with its return.

    Every draw is a function of the seed, the round and the scene's place in it. A loaded agent therefore goes on, with
    ``learn(remaining, reset_num_timesteps=False)``, as if it had not been interrupted, to the bit; a round whose update
    was not taken is taken again. Under torch.distributed the scenes of a round are split over the processes, which
    take the gradient steps that one would. (Policies with dropout draw from torch's global stream instead.)

    Args:
        policy: ``"TaildropPolicy"``, an alias of Stable-Baselines3 (``"MlpPolicy"``, …) or a class.
        env: a `TaildropEnv`, any registered environment, or the id of one, of which ``scenes × group_size`` copies are
            made; or a `VecEnv`: a `TaildropVecEnv` with ``group_size ≥ 2`` or copies of another environment.
        learning_rate: Adam's; a number or, as other settings so typed, a schedule of the remaining progress.
        group_size: G (TRL: ``num_generations``); 8 by default. With a `TaildropVecEnv`, its own.
        scenes: P, scenes a round; 16 by default. With a `VecEnv`, its own.
        n_epochs: μ (TRL: ``num_iterations``), passes over the sampled paths.
        batch_size: scenes a gradient step; all P by default.
        kl_coef: β (TRL: ``beta``), weight of KL(π ‖ π_reference).
        kl_estimator: ``"exact"``, over all actions, or ``"k3"`` of the sampled ones (DeepSeekMath Eq. 4).
        clip_range: ε_low. With a single gradient step a round, clipping changes nothing.
        clip_range_high: ε_high (clip-higher: DAPO, arXiv 2503.14476); None for ``clip_range``.
        delta: two-sided cap of the ratio (INTELLECT-2, arXiv 2505.07291); see `clipped_surrogate`.
        target_kl: end a round's steps when the policy has moved 1.5 times as far (Stable-Baselines3's PPO). It costs
            one number from the device a gradient step.
        credit: ``"path"`` gives every decision of a path the path's advantage (the supplement's reading); ``"clip"``
            compares each decision with its group's decisions on the same clip, path terms shared; see `CreditRule`.
        scale_rewards: ``"group"``, ``"batch"`` (arXiv 2508.08221) or ``"none"`` (Dr. GRPO, arXiv 2503.20783); see
            `group_advantage`.
        reward_aggregation: ``"sum_then_normalize"``, or ``"normalize_then_sum"`` (GDPO, arXiv 2601.05242; TRL:
            ``multi_objective_aggregation``); see `decoupled_advantage`.
        advantage_eps: added to standard deviations.
        drop_zero_std_groups: leave decisions whose group has no advantage at all out of the loss, its KL and its mean
            (DAPO's filter, without resampling); otherwise they count as zeros, as in TRL.
        gradient: ``"sampled"``, or ``"enumerated"``: all K lengths of every decision are scored, and the policy
            gradient is exact given the path's other lengths; see `CreditRule.exact_advantage`.
        ent_coef: weight of an entropy bonus (TRL: ``entropy_coef``).
        ref_sync_every: rounds between updates of the reference (TR-DPO, arXiv 2404.09656; TRL:
            ``ref_model_sync_steps``); None keeps the initial policy.
        ref_sync_mix: the policy's share in such an update (TRL: ``ref_model_mixup_alpha``); read with
            ``ref_sync_every``.
        max_grad_norm: gradient clipping.
        stats_window_size: path rewards averaged for ``rollout/ep_rew_mean``.
        tensorboard_log: folder for TensorBoard events.
        policy_kwargs: arguments of the policy; a `TaildropPolicy`'s ``tokenizer`` is filled in from the environment.
        verbose: 0 none, 1 info.
        seed: of everything drawn; without one, torch's global stream gives it.
        device: of the policy; ``"auto"`` follows the environment's world.
        _init_setup_model: whether to build the networks at once.

    Raises:
        ValueError: a group of fewer than two paths, an unknown choice, or settings that contradict the environment or
            leave each other without effect.
    """

    reference_policy: ActorCriticPolicy

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy] = "TaildropPolicy",
        env: GymEnv | str | None = "vaportok/Taildrop-v0",
        learning_rate: float | Schedule = 3e-4,
        *,
        group_size: int | None = None,
        scenes: int | None = None,
        n_epochs: int = 2,
        batch_size: int | None = None,
        kl_coef: float | Schedule = 0.1,
        kl_estimator: Literal["exact", "k3"] = "exact",
        clip_range: float | Schedule = 0.2,
        clip_range_high: float | Schedule | None = 0.28,
        delta: float | None = None,
        target_kl: float | None = None,
        credit: Credit = "path",
        scale_rewards: ScaleRewards = "group",
        reward_aggregation: RewardAggregation = "sum_then_normalize",
        advantage_eps: float = 1e-4,
        drop_zero_std_groups: bool = False,
        gradient: Literal["sampled", "enumerated"] = "sampled",
        ent_coef: float = 0.0,
        ref_sync_every: int | None = None,
        ref_sync_mix: float = 0.6,
        max_grad_norm: float = 1.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_options(locals())
        self.n_epochs, self.batch_size = n_epochs, batch_size
        self.kl_coef, self.kl_estimator, self.ent_coef = kl_coef, kl_estimator, ent_coef
        self.clip_range, self.clip_range_high, self.delta = clip_range, clip_range_high, delta
        self.target_kl, self.max_grad_norm = target_kl, max_grad_norm
        self.credit, self.scale_rewards, self.reward_aggregation = credit, scale_rewards, reward_aggregation
        self.advantage_eps, self.drop_zero_std_groups, self.gradient = advantage_eps, drop_zero_std_groups, gradient
        self.ref_sync_every, self.ref_sync_mix = ref_sync_every, ref_sync_mix
        super().__init__(
            policy,
            env,
            learning_rate,
            group_size=group_size,
            scenes=scenes,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        if env is not None:
            self._check_environment()
        if _init_setup_model:
            self._setup_model()

    def _check_environment(self) -> None:
        if not self.parallel and (self.credit, self.gradient) != ("path", "sampled"):
            raise ValueError(
                f"Expected credit='path' and gradient='sampled' outside the taildrop environment, got {self.credit!r} "
                f"and {self.gradient!r}; members of a group share only their beginning there."
            )
        check_steps(self.n_epochs * -(-self.scenes // (self.batch_size or self.scenes)), self.target_kl, self.delta)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.reference_policy = copy.deepcopy(self.policy)
        self.reference_policy.set_training_mode(False)
        self.reference_policy.requires_grad_(False)

    @property
    def scores_every_length(self) -> bool:
        """Whether rollouts hold the outcome of all K lengths."""
        return self.gradient == "enumerated"

    def advantages(self, rollout: GroupRollout) -> Tensor:
        """What the update learns from.

        Returns:
            ``float32 [G, P, L]``, the advantage of every decision taken; with an enumerated gradient ``[G, P, L, K]``,
            of every length at every decision. Of several processes, this one's scenes.
        """
        rule = CreditRule(self.credit, self.scale_rewards, self.reward_aggregation, self.advantage_eps)
        if self.gradient == "enumerated":
            assert isinstance(rollout, SceneRollout)
            assert rollout.every is not None
            process = self.vector_env.process
            conditional = rule.conditional_signals(rollout.every, rollout.actions, process.token_range, process.reward)
            return rule.exact_advantage(conditional, rollout.old_log_p[0], rollout.rewards, self.processes)
        advantage = rule.sampled_advantage(rollout.rewards)
        return advantage[:, self.processes.rank :: self.processes.count].expand_as(rollout.actions)

    def loss(
        self, rollout: GroupRollout, advantage: Tensor, scenes: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective on some scenes, negated; of several processes, this one's part of it.

        Args:
            rollout: what was sampled.
            advantage: from `advantages`.
            scenes: ``int64 [P']``, the scenes of this gradient step.
            reference: the reference policy's log-probabilities of the whole rollout, if they are known.

        Returns:
            The scalar loss and detached scalars to log.
        """
        log_p = rollout.log_probs(self.policy, scenes)  # [1 or G, P', L, A]
        if reference is None:
            with torch.no_grad():
                reference = rollout.log_probs(self.reference_policy)
        log_ref, taken = reference[:, scenes], rollout.actions[:, scenes, :, None]
        advantage, counted = advantage[:, scenes], rollout.alive[:, scenes]  # [G, P', L, …], [G, P', L]
        if advantage.dim() == 4:  # every length, weighted by the probability with which it would have been drawn
            assert isinstance(rollout, SceneRollout)
            log_prob, old_log_prob = log_p, rollout.old_log_p[:, scenes]
            weight = old_log_prob.exp()
        else:  # the one that was drawn
            advantage, old_log_prob = advantage[..., None], rollout.old_log_prob[:, scenes, :, None]
            log_prob = log_p.expand(taken.shape[0], -1, -1, -1).gather(-1, taken)
            weight = torch.ones_like(old_log_prob)
        if self.drop_zero_std_groups:
            counted = counted & (advantage != 0).any(-1).any(0)
        decisions = self.processes.sum(counted.sum()).clamp(min=1)

        def mean(values: Tensor) -> Tensor:  # of [1 or G, P', L], over the decisions that count
            return torch.where(counted, values, 0.0).sum() / decisions

        def expected(values: Tensor) -> Tensor:  # of [G, P', L, …], over what is judged at each decision
            return mean((values * weight).sum(-1))

        surrogate = clipped_surrogate(log_prob, old_log_prob, advantage, *self._clip_now(), self.delta)
        policy_loss = -expected(surrogate.objective)
        if self.kl_estimator == "exact":
            kl = mean(kl_exact(log_p, log_ref))
        else:
            kl = mean(kl_k3(log_prob, log_ref.expand(taken.shape[0], -1, -1, -1).gather(-1, taken)).squeeze(-1))
        spread = mean(entropy(log_p))
        loss = policy_loss + self._now(self.kl_coef) * kl - self.ent_coef * spread

        low, high = expected(surrogate.clipped_low), expected(surrogate.clipped_high)
        log_ratio = (log_prob - old_log_prob).detach()
        figures = {
            "loss": loss,
            "policy_gradient_loss": policy_loss,
            "kl": kl,
            "entropy": spread,
            "entropy_loss": -spread,
            "approx_kl": expected(torch.expm1(log_ratio) - log_ratio),
            "clip_fraction": low + high,
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,
        }
        total = self.processes.sum(torch.stack([value.detach() for value in figures.values()]))
        return loss, dict(zip(figures, total.unbind(), strict=True))

    def train(self, rollout: GroupRollout) -> dict[str, Tensor]:
        """Takes μ passes of clipped steps over a rollout; returns the mean of the logged scalars.

        Raises:
            NonFiniteLossError: the loss or the gradient was not finite; the weights are those before the round.
            ValueError: the clip range of this round is empty, or the cap lies within it.
        """
        check_clip(*self._clip_now(), self.delta)
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        parameters = list(self.policy.parameters())
        # Whether a step was sound is read once a round, not once a step, so what a bad one spoils must be kept.
        before = copy.deepcopy((self.policy.state_dict(), self.policy.optimizer.state_dict()))
        advantage = self.advantages(rollout)
        with torch.no_grad():
            reference = rollout.log_probs(self.reference_policy)
        history: list[dict[str, Tensor]] = []
        for scenes in self._minibatches():
            loss, figures = self.loss(rollout, advantage, scenes, reference)
            if self.target_kl is not None and figures["approx_kl"] > 1.5 * self.target_kl:
                break
            self.policy.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.processes.sum_gradients(parameters)
            figures["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.policy.optimizer.step()
            history.append(figures)
        record = {name: torch.stack([figures[name] for figures in history]) for name in history[0]}
        sound = torch.isfinite(record["loss"]) & torch.isfinite(record["gradient_norm"])
        if not bool(sound.all()):
            self.policy.load_state_dict(before[0])
            self.policy.optimizer.load_state_dict(before[1])
            step = sound.tolist().index(False)
            raise NonFiniteLossError(
                f"Expected a finite loss, got {record['loss'][step]:g} (gradient norm "
                f"{record['gradient_norm'][step]:g}) after {self._n_updates + step} updates; the weights from before "
                "this round were put back. Look for a reward term that returns NaN, or lower learning_rate."
            )
        self._n_updates += len(history)
        return {name: values.mean() for name, values in record.items()}

    def _minibatches(self) -> Iterator[Tensor]:
        """The scenes of each gradient step of a round; of several processes, this one's among them."""
        scenes, processes = self.scenes, self.processes
        generator = torch.Generator().manual_seed(derive_seed("batches", self.stream_seed, self.rounds))
        size = min(self.batch_size or scenes, scenes)
        for _ in range(self.n_epochs):
            order = torch.randperm(scenes, generator=generator) if size < scenes else torch.arange(scenes)
            for batch in order.split(size):
                mine = batch[batch % processes.count == processes.rank] // processes.count
                yield mine.to(self.device, non_blocking=True)

    def _finish_round(self) -> None:
        super()._finish_round()
        if self.ref_sync_every is not None and self.rounds % self.ref_sync_every == 0:
            with torch.no_grad():
                pairs = zip(self.reference_policy.parameters(), self.policy.parameters(), strict=True)
                for reference, current in pairs:
                    reference.lerp_(current, self.ref_sync_mix)

    def _now(self, setting: float | Schedule) -> float:
        return value_of(setting, self._current_progress_remaining)

    def _clip_now(self) -> tuple[float, float]:
        low = self._now(self.clip_range)
        return low, low if self.clip_range_high is None else self._now(self.clip_range_high)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        # What is not declared here would come back from a load as a freshly initialised network.
        return ["policy", "policy.optimizer", "reference_policy"], []
