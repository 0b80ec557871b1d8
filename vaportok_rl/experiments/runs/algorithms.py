"""The algorithms of ``train --algo``: their settings and constructors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypedDict, get_args

from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import VecEnv

from vaportok_rl.agents import TaildropPolicy
from vaportok_rl.agents.grpo.environments import group_env_of
from vaportok_rl.agents.reinforce import REINFORCE
from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, SHARE, Range

Algorithm = Literal["grpo", "ppo", "a2c", "reinforce"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


class Shared(TypedDict):
    """Constructor arguments of all algorithms."""

    policy_kwargs: dict[str, Any]
    seed: int
    device: str


@dataclass(frozen=True)
class PPOSettings:
    """PPO of Stable-Baselines3; defaults tuned by hand on nano and procedural clips with a few thousand decisions."""

    learning_rate: Annotated[float, NOT_NEGATIVE] = 3e-4
    """Adam's."""
    n_epochs: Annotated[int, AT_LEAST_1] = 2
    """Passes over a rollout; four were no faster."""
    minibatches: Annotated[int, AT_LEAST_1] = 4
    """Gradient steps per pass."""
    gae_lambda: Annotated[float, SHARE] = 1.0
    """At 1 the critic is a baseline only. Below 1, its estimates of unseen later clips bias the advantage."""
    clip_range: Annotated[float, POSITIVE] = 0.2
    """Of the ratio."""
    ent_coef: Annotated[float, NOT_NEGATIVE] = 0.0
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, NOT_NEGATIVE] = 0.05
    """Weight of the value loss. Actor and critic share a trunk: at the usual 0.5 the value loss takes most of the
    clipped gradient, and the lengths are learnt more slowly."""
    max_grad_norm: Annotated[float, Range(0, open_low=True, infinite=True)] = 0.5
    """Gradient clipping."""
    target_kl: Annotated[float | None, POSITIVE] = None
    """Ends a rollout's gradient steps once the KL to the sampling policy exceeds 1.5 times this."""

    def build(self, environment: VecEnv, shared: Shared) -> PPO:
        """The algorithm; a rollout is one path per environment; advantages are standardised per minibatch."""
        options = asdict(self)
        steps = group_env_of(environment).process.path_length
        batch_size = -(-steps * environment.num_envs // options.pop("minibatches"))
        return PPO(TaildropPolicy, environment, n_steps=steps, batch_size=batch_size, gamma=1.0, **options, **shared)


@dataclass(frozen=True)
class A2CSettings:
    """A2C of Stable-Baselines3; defaults tuned by hand on nano and procedural clips with a few thousand decisions."""

    learning_rate: Annotated[float, NOT_NEGATIVE] = 1e-3
    """Adam's, as for the other algorithms."""
    gae_lambda: Annotated[float, SHARE] = 1.0
    """See PPO's."""
    ent_coef: Annotated[float, NOT_NEGATIVE] = 0.0
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, NOT_NEGATIVE] = 0.05
    """See PPO's."""
    max_grad_norm: Annotated[float, Range(0, open_low=True, infinite=True)] = 0.5
    """Gradient clipping."""

    def build(self, environment: VecEnv, shared: Shared) -> A2C:
        """The algorithm; a rollout is one path per environment, with standardised advantages."""
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

    learning_rate: Annotated[float, NOT_NEGATIVE] = 5e-4
    """Adam's."""
    baseline_decay: Annotated[float, Range(0, 1, open_high=True)] = 0.9
    """Decay of the moving average per rollout."""

    def build(self, environment: VecEnv, shared: Shared) -> REINFORCE:
        """The algorithm; a rollout is one path per environment."""
        steps = group_env_of(environment).process.path_length
        return REINFORCE(TaildropPolicy, environment, n_steps=steps, **asdict(self), **shared)
