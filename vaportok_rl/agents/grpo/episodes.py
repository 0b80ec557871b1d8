"""Groups of whole episodes of any Gymnasium environment. Members share a reset seed; lengths may differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor

from vaportok_rl.agents.grpo.rollout import GroupRollout, draw_actions
from vaportok_rl.envs import RewardResult
from vaportok_rl.runtime.seeds import derive_seed

RETURN = "return"
# Gymnasium takes seeds below this.
_SEEDS = 2**31
OnStep = Callable[[int, dict[str, Any]], bool]


class EpisodeVecEnv(DummyVecEnv):
    """Copies of an environment in groups of ``group_size`` consecutive ones."""

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]], group_size: int) -> None:
        super().__init__(list(env_fns))
        self.group_size = group_size


@dataclass(frozen=True)
class EpisodeRollout(GroupRollout):
    """Whole episodes, padded to the longest; ``observations`` are ``[G, P, L, ...]``, or such tensors by name."""

    observations: Tensor | dict[str, Tensor]

    def log_probs(self, policy: Any, scenes: Tensor | None = None) -> Tensor:
        """See `GroupRollout.log_probs`: ``[G, P', L, A]``; zeros after the end of an episode."""
        alive = self.alive if scenes is None else self.alive[:, scenes]

        def some(values: Tensor) -> Tensor:
            return (values if scenes is None else values[:, scenes])[alive]

        seen = self.observations
        log_p = action_log_probs(
            policy, {k: some(v) for k, v in seen.items()} if isinstance(seen, dict) else some(seen)
        )
        padded = log_p.new_zeros(*alive.shape, log_p.shape[-1])
        return padded.masked_scatter(alive[..., None], log_p)


def action_log_probs(policy: ActorCriticPolicy, observations: Any) -> Tensor:
    """Log-probabilities of all `Discrete` actions: ``[N, ...]`` to ``[N, A]``."""
    distribution: Any = policy.get_distribution(observations).distribution
    log_p: Tensor = distribution.logits  # normalised by torch
    return log_p


@torch.no_grad()
def collect_episodes(
    env: VecEnv, group_size: int, policy: ActorCriticPolicy, seed: int, number: int, on_step: OnStep
) -> EpisodeRollout | None:
    """Plays one episode per copy; copies of a group are reset to one seed.

    All samples depend only on the seed, the round and the step.

    Args:
        env: ``P · group_size`` copies; consecutive ones form a group. Its episodes must end.
        group_size: G.
        policy: samples the actions.
        seed: of the run.
        number: of the round.
        on_step: called after each step with the number of environment steps and with ``infos``, ``dones`` and
            ``rewards`` by name (empty or zero for finished copies); returns whether to continue.

    Returns:
        The episodes, or None if ``on_step`` stopped them.
    """
    copies = env.num_envs
    base: Any = env.unwrapped
    first = derive_seed("scene", seed, number) % (_SEEDS - copies)
    generator = torch.Generator().manual_seed(derive_seed("paths", seed, number))
    seen: list[Any] = []
    taken, log_probs, lives, paid = [], [], [], []
    alive = np.ones(copies, dtype=bool)
    # Stable-Baselines3 has no public way to give several copies one seed.
    base._seeds = [first + copy // group_size for copy in range(copies)]
    observations = env.reset()
    while alive.any():
        tensors, _ = policy.obs_to_tensor(observations)  # type: ignore[arg-type]  # no tuples of observations
        log_p = action_log_probs(policy, tensors)
        uniform = torch.rand(copies, 1, generator=generator).to(log_p.device)
        actions = draw_actions(log_p, uniform)
        observations, rewards, dones, infos = env.step(actions[:, 0].cpu().numpy())
        # A reward counts for members that were alive before the step.
        seen.append(tensors)
        taken.append(actions[:, 0])
        log_probs.append(log_p.gather(1, actions)[:, 0])
        lives.append(torch.from_numpy(alive.copy()))
        rewards, dones = np.where(alive, rewards, 0), dones & alive
        paid.append(torch.from_numpy(rewards))
        shown = {
            "infos": [info if here else {} for info, here in zip(infos, alive, strict=True)],
            "dones": dones,
            "rewards": rewards,
        }
        alive = alive & ~dones
        if not on_step(copies, shown):
            return None

    def grouped(steps: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(steps)).to(policy.device)
        found: Tensor = stacked.unflatten(1, (-1, group_size)).transpose(0, 2).contiguous()
        return found

    named = isinstance(seen[0], dict)
    observed: Any = {key: grouped([one[key] for one in seen]) for key in seen[0]} if named else grouped(seen)
    total = grouped(paid).double().sum(2).float()
    rewards_of_paths = RewardResult({RETURN: total}, {RETURN: 1.0}, len(seen))
    return EpisodeRollout(grouped(taken), grouped(log_probs), grouped(lives), rewards_of_paths, observed)
