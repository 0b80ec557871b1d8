"""Group Relative Policy Optimisation as a Stable-Baselines3 algorithm."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from vaportok_rl.agents.grpo.credit import CreditRule
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.agents.grpo.rollout import GroupRollout, SceneRollout
from vaportok_rl.agents.grpo.rounds import GroupAlgorithm
from vaportok_rl.agents.objective import clipped_surrogate, entropy, kl_exact, kl_k3
from vaportok_rl.envs.rewards.contract import not_finite
from vaportok_rl.runtime.declared import signature_with
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError


class GRPO(GroupAlgorithm):
    """GRPO (DeepSeekMath, arXiv 2402.03300) with the VaporTok supplement's defaults.

    Each round samples P scenes and G paths through each, standardises the path rewards within each group, and takes μ
    clipped passes with a KL penalty to the initial policy. There is no critic. On the taildrop environment, all
    decisions of a round are sampled and scored at once, on the device. In any other environment with `Discrete`
    actions, a group is G copies reset to one seed; they play whole episodes, and every decision is credited with its
    episode's return.

    All samples depend only on the seed, the round and the scene's index. A loaded agent therefore resumes bit-exactly
    with ``learn(remaining, reset_num_timesteps=False)``; an interrupted round is resampled identically. Under
    torch.distributed, the ranks split the scenes of a round and take the gradient steps of a single process. (Policies
    with dropout use torch's global generator instead.)

    Args:
        policy: ``"TaildropPolicy"``, an alias of Stable-Baselines3 (``"MlpPolicy"``, …) or a class.
        env: a `TaildropEnv`, another registered environment or an id, which is copied ``scenes × group_size`` times; or
            a `VecEnv`: a `TaildropVecEnv` with ``group_size ≥ 2``, or copies of another environment.
        learning_rate: see `GRPOOptions`.
        group_size: G (TRL: ``num_generations``); 8 by default. With a `TaildropVecEnv`, its own.
        scenes: P, scenes per round; 16 by default. With a `VecEnv`, its own.
        stats_window_size: path rewards averaged for ``rollout/ep_rew_mean``.
        tensorboard_log: folder for TensorBoard events.
        policy_kwargs: arguments of the policy; a `TaildropPolicy`'s ``tokenizer`` defaults to the environment's.
        verbose: 0 none, 1 info.
        seed: of all samples; drawn from torch's global generator if not given.
        device: of the policy; ``"auto"`` follows the environment's tokenizer.
        _init_setup_model: whether to build the networks at once.
        **options: see `GRPOOptions`; `Scheduled` numbers may be functions of the remaining progress.

    Raises:
        TypeError: there is no such option, or one is of another type.
        ValueError: an option out of range, a group of fewer than two paths, options that contradict the environment, or
            options that have no effect together.
    """

    reference_policy: ActorCriticPolicy

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy] = "TaildropPolicy",
        env: GymEnv | str | None = "vaportok/Taildrop-v0",
        learning_rate: float | Schedule = GRPOOptions.learning_rate,
        *,
        group_size: int | None = None,
        scenes: int | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **options: Any,
    ) -> None:
        # As attributes they can be changed between rounds and are saved with the agent.
        vars(self).update(GRPOOptions.of({"learning_rate": learning_rate, **options}).options())
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
        options = self.options
        if not self.parallel and (options.credit == "clip" or options.gradient != "sampled"):
            raise ValueError(
                f"Expected credit='path' and gradient='sampled' outside the taildrop environment, got "
                f"{options.credit!r} and {options.gradient!r}; members of a group share only their beginning there."
            )
        options.check_steps(options.n_epochs * -(-self.scenes // (options.batch_size or self.scenes)))

    @property
    def options(self) -> GRPOOptions:
        """The current options."""
        chosen: dict[str, Any] = {field.name: getattr(self, field.name, field.default) for field in fields(GRPOOptions)}
        return GRPOOptions(**chosen)

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = self.options.schedule()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.reference_policy = copy.deepcopy(self.policy)
        self.reference_policy.set_training_mode(False)
        self.reference_policy.requires_grad_(False)

    @property
    def scores_every_length(self) -> bool:
        """Whether rollouts hold the outcome of all K lengths."""
        return self.options.gradient != "sampled"

    def advantages(self, rollout: GroupRollout) -> Tensor:
        """Advantages of a rollout.

        Returns:
            ``float32 [G, P, L]``, of every sampled decision of this rank's scenes; unless ``gradient="sampled"``,
            ``[G, P, L, K]``, of all lengths at every decision.
        """
        chosen = self.options
        credit = chosen.credit or ("clip" if self.parallel else "path")
        rule = CreditRule(credit, chosen.scale_rewards, chosen.reward_aggregation, chosen.advantage_eps)
        if chosen.gradient != "sampled":
            assert isinstance(rollout, SceneRollout)
            assert rollout.every is not None
            conditional = rule.conditional_signals(rollout.every, rollout.actions, self.vector_env.process.judge)
            if chosen.gradient == "candidates":
                return rule.candidate_advantage(conditional, rollout.old_log_p[0])
            return rule.exact_advantage(conditional, rollout.old_log_p[0], rollout.rewards, self.processes)
        advantage = rule.sampled_advantage(rollout.rewards)
        return advantage[:, self.processes.rank :: self.processes.count].expand_as(rollout.actions)

    def loss(
        self, rollout: GroupRollout, advantage: Tensor, scenes: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The negated objective on some scenes (this rank's part of it).

        Args:
            rollout: the sampled paths.
            advantage: from `advantages`.
            scenes: ``int64 [P']``, the scenes of this gradient step.
            reference: the reference policy's log-probabilities on the whole rollout; computed if not given.

        Returns:
            The scalar loss and detached metrics to log.
        """
        now = self.options.at(self._current_progress_remaining)
        log_p = rollout.log_probs(self.policy, scenes)  # [1 or G, P', L, A]
        if reference is None:
            with torch.no_grad():
                reference = rollout.log_probs(self.reference_policy)
        log_ref, taken = reference[:, scenes], rollout.actions[:, scenes, :, None]
        advantage, counted = advantage[:, scenes], rollout.alive[:, scenes]  # [G, P', L, …], [G, P', L]
        if advantage.dim() == 4:  # all lengths, weighted by their old probability
            assert isinstance(rollout, SceneRollout)
            log_prob, old_log_prob = log_p, rollout.old_log_p[:, scenes]
            weight = old_log_prob.exp()
        else:  # the sampled length
            advantage, old_log_prob = advantage[..., None], rollout.old_log_prob[:, scenes, :, None]
            log_prob = log_p.expand(taken.shape[0], -1, -1, -1).gather(-1, taken)
            weight = torch.ones_like(old_log_prob)
        if now.drop_zero_std_groups:
            counted = counted & (advantage != 0).any(-1).any(0)
        decisions = self.processes.sum(counted.sum()).clamp(min=1)

        def mean(values: Tensor) -> Tensor:  # of [1 or G, P', L], over the decisions that count
            return torch.where(counted, values, 0.0).sum() / decisions

        def expected(values: Tensor) -> Tensor:  # of [G, P', L, …], over the lengths of each decision
            return mean((values * weight).sum(-1))

        assert now.clip_range_high is not None  # filled in
        surrogate = clipped_surrogate(log_prob, old_log_prob, advantage, now.clip_range, now.clip_range_high, now.delta)
        policy_loss = -expected(surrogate.objective)
        if now.kl_estimator == "exact":
            kl = mean(kl_exact(log_p, log_ref))
        else:
            kl = mean(kl_k3(log_prob, log_ref.expand(taken.shape[0], -1, -1, -1).gather(-1, taken)).squeeze(-1))
        spread = mean(entropy(log_p))
        loss = policy_loss + now.kl_coef * kl - now.ent_coef * spread

        low, high = expected(surrogate.clipped_low), expected(surrogate.clipped_high)
        log_ratio = (log_prob - old_log_prob).detach()
        metrics = {
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
        total = self.processes.sum(torch.stack([value.detach() for value in metrics.values()]))
        return loss, dict(zip(metrics, total.unbind(), strict=True))

    def train(self, rollout: GroupRollout) -> dict[str, Tensor]:
        """Takes μ passes of gradient steps over a rollout; returns the means of the metrics.

        Raises:
            NonFiniteLossError: the loss or the gradient was not finite; the weights are restored.
            ValueError: an option is out of range this round.
        """
        options = self.options
        options.at(self._current_progress_remaining)
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        parameters = list(self.policy.parameters())
        # Finiteness is checked once per round, not per step, so the state before the round is kept.
        before = copy.deepcopy((self.policy.state_dict(), self.policy.optimizer.state_dict()))
        advantage = self.advantages(rollout)
        with torch.no_grad():
            reference = rollout.log_probs(self.reference_policy)
        history: list[dict[str, Tensor]] = []
        taken = 0
        for scenes in self._minibatches():
            loss, metrics = self.loss(rollout, advantage, scenes, reference)
            if options.target_kl is not None and metrics["approx_kl"] > 1.5 * options.target_kl:
                # Dropout may have moved the policy this far before the first step.
                history = history or [metrics]
                break
            taken += 1
            self.policy.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.processes.sum_gradients(parameters)
            metrics["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
            self.policy.optimizer.step()
            history.append(metrics)
        record = {name: torch.stack([metrics[name] for metrics in history]) for name in history[0]}
        sound = torch.isfinite(record["loss"])
        if taken:
            sound &= torch.isfinite(record["gradient_norm"])
        if not bool(sound.all()):
            self.policy.load_state_dict(before[0])
            self.policy.optimizer.load_state_dict(before[1])
            step = sound.tolist().index(False)
            fault = None
            if isinstance(rollout, SceneRollout):
                outcome = rollout.outcome
                fault = not_finite(rollout.rewards.raw, outcome.n_tokens, outcome.scene.ids)
            norm = f" (gradient norm {record['gradient_norm'][step]:g})" if taken else ""
            raise NonFiniteLossError(
                f"Expected a finite loss, got {record['loss'][step]:g}{norm} after {self._n_updates + step} updates; "
                f"the weights from before this round were put back. {fault or 'Lower learning_rate.'}"
            )
        self._n_updates += taken
        return {name: values.mean() for name, values in record.items()}

    def _minibatches(self) -> Iterator[Tensor]:
        """The scenes of each gradient step of a round; of these, this rank's."""
        scenes, processes = self.scenes, self.processes
        generator = torch.Generator().manual_seed(derive_seed("batches", self.stream_seed, self.rounds))
        size = min(self.options.batch_size or scenes, scenes)
        for _ in range(self.options.n_epochs):
            order = torch.randperm(scenes, generator=generator) if size < scenes else torch.arange(scenes)
            for batch in order.split(size):
                mine = batch[batch % processes.count == processes.rank] // processes.count
                yield mine.to(self.device, non_blocking=True)

    def _finish_round(self) -> None:
        super()._finish_round()
        every = self.options.ref_sync_every
        if every is not None and self.rounds % every == 0:
            with torch.no_grad():
                pairs = zip(self.reference_policy.parameters(), self.policy.parameters(), strict=True)
                for reference, current in pairs:
                    reference.lerp_(current, self.options.ref_sync_mix)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        # A network that is not listed here would be re-initialised by `load`.
        return ["policy", "policy.optimizer", "reference_policy"], []


GRPO.__signature__ = signature_with(GRPO.__init__, GRPOOptions)  # type: ignore[attr-defined]
