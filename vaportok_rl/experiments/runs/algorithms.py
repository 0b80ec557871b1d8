"""The optimisers that ``train --algo`` offers: each one's settings, and how it is made on the same environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypedDict, get_args

from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from vaportok_rl.agents import GRPO, TaildropPolicy
from vaportok_rl.agents.grpo.credit import Credit, RewardAggregation
from vaportok_rl.agents.grpo.environments import group_env_of
from vaportok_rl.agents.objective import ScaleRewards
from vaportok_rl.agents.reinforce import REINFORCE

Algorithm = Literal["grpo", "ppo", "a2c", "reinforce"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
CLASSES: Mapping[Algorithm, type[BaseAlgorithm]] = {"grpo": GRPO, "ppo": PPO, "a2c": A2C, "reinforce": REINFORCE}


class Shared(TypedDict):
    """Arguments that all algorithms are made with."""

    policy_kwargs: dict[str, Any]
    seed: int
    device: str


@dataclass(frozen=True)
class GRPOSettings:
    """GRPO's settings, named as its arguments, which say more about them."""

    learning_rate: float = 3e-4
    """Adam's."""
    final_learning_rate: float = 1.0
    """Share of the learning rate that is left at the end; it falls linearly."""
    n_epochs: int = 2
    """Inner iterations μ."""
    batch_size: int | None = None
    """Scenes a gradient step; all of a round's if not given."""
    kl_coef: float = 0.1
    """β, weight of the KL to the reference policy."""
    kl_estimator: Literal["exact", "k3"] = "exact"
    """KL over all lengths, or estimated from the sampled ones."""
    clip_range: float = 0.2
    """ε_low."""
    clip_range_high: float | None = 0.28
    """ε_high (clip-higher); ε_low if `None`."""
    delta: float | None = None
    """Two-sided cap of the ratio."""
    target_kl: float | None = None
    """Ends a round's steps when the policy has moved 1.5 times as far."""
    credit: Credit = "path"
    """One advantage a path, or one a clip."""
    scale_rewards: ScaleRewards = "group"
    """What advantages are scaled by: the standard deviation of the group, of the batch, or nothing."""
    reward_aggregation: RewardAggregation = "sum_then_normalize"
    """Whether terms are summed before they are standardised, or after (GDPO)."""
    drop_zero_std_groups: bool = False
    """Leave groups without any advantage out of the loss."""
    gradient: Literal["sampled", "enumerated"] = "sampled"
    """Policy gradient from the sampled lengths, or from all K."""
    ent_coef: float = 0.0
    """Weight of an entropy bonus."""
    ref_sync_every: int | None = None
    """Rounds between updates of the reference policy; never if not given."""
    ref_sync_mix: float = 0.6
    """The policy's share in such an update."""
    max_grad_norm: float = 1.0
    """Gradient clipping."""

    def grpo_options(self) -> dict[str, Any]:
        """Arguments of `GRPO`, the learning rate as a schedule where it falls.

        Raises:
            ValueError: a final share outside [0, 1].
        """
        options = {part.name: getattr(self, part.name) for part in fields(GRPOSettings)}
        final = options.pop("final_learning_rate")
        if not 0 <= final <= 1:
            raise ValueError(f"Expected 0 ≤ final_learning_rate ≤ 1, got {final}; it is a share of learning_rate.")
        if final < 1:
            options["learning_rate"] = LinearSchedule(self.learning_rate, self.learning_rate * final, 1.0)
        return options


@dataclass(frozen=True)
class PPOSettings:
    """PPO (Stable-Baselines3's). Tuned by hand on nano and procedural clips, a few thousand decisions each."""

    learning_rate: float = 3e-4
    """Adam's."""
    n_epochs: int = 2
    """Passes over a rollout; four learnt no faster."""
    minibatches: int = 4
    """Gradient steps a pass."""
    gae_lambda: float = 1.0
    """1 takes the critic as a baseline only. Smaller values also trust what it says about the clips to come, which it
    has not seen: 0.5 learnt markedly less."""
    clip_range: float = 0.2
    """Of the ratio."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.05
    """Weight of the value loss. Its gradient reaches the trunk that actor and critic share: at the usual 0.5 it takes
    most of the clipped gradient, and the lengths are learnt more slowly."""
    max_grad_norm: float = 0.5
    """Gradient clipping."""
    target_kl: float | None = None
    """Ends a rollout's steps when the policy has moved 1.5 times as far."""

    def build(self, environment: VecEnv, shared: Shared) -> PPO:
        """The algorithm; a rollout is one path of every environment, advantages are standardised in each minibatch."""
        options = asdict(self)
        steps = group_env_of(environment).process.path_length
        batch_size = -(-steps * environment.num_envs // options.pop("minibatches"))
        return PPO(TaildropPolicy, environment, n_steps=steps, batch_size=batch_size, gamma=1.0, **options, **shared)


@dataclass(frozen=True)
class A2CSettings:
    """A2C (Stable-Baselines3's). Tuned by hand on nano and procedural clips, a few thousand decisions each."""

    learning_rate: float = 1e-3
    """Adam's, as for the other algorithms."""
    gae_lambda: float = 1.0
    """See PPO's."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.05
    """See PPO's."""
    max_grad_norm: float = 0.5
    """Gradient clipping."""

    def build(self, environment: VecEnv, shared: Shared) -> A2C:
        """The algorithm; a rollout is one path of every environment, its advantages are standardised."""
        return A2C(
            TaildropPolicy,
            environment,
            n_steps=group_env_of(environment).process.path_length,
            gamma=1.0,
            normalize_advantage=True,
            use_rms_prop=False,
            **asdict(self),
            **shared,
        )


@dataclass(frozen=True)
class ReinforceSettings:
    """REINFORCE with a moving-average baseline."""

    learning_rate: float = 5e-4
    """Adam's."""
    baseline_decay: float = 0.9
    """How much of the baseline survives a rollout."""

    def build(self, environment: VecEnv, shared: Shared) -> REINFORCE:
        """The algorithm; a rollout is one path of every environment."""
        steps = group_env_of(environment).process.path_length
        return REINFORCE(TaildropPolicy, environment, n_steps=steps, **asdict(self), **shared)


def check_groups(group_size: int) -> None:
    """Refuses groups that GRPO could not compare, for every algorithm: they train on the same scenes.

    Raises:
        ValueError: a group of fewer than two.
    """
    if group_size < 2:
        raise ValueError(f"Expected group_size ≥ 2, got {group_size}; GRPO compares the paths of a group.")
