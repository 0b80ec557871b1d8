"""Environments with a reward vector, one entry per reward term (MO-Gymnasium's convention)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.taildrop_env import TaildropEnv
from vaportok_rl.envs.vector_env import TaildropVectorEnv
from vaportok_rl.envs.walk import StepOutcome


class _TermVector:
    """MO-Gymnasium's attributes, read from the environment's ``process``."""

    process: TaildropProcess

    @property
    def reward_terms(self) -> tuple[str, ...]:
        """Names of the reward vector's entries, in order."""
        return self.process.reward.names

    @property
    def reward_dim(self) -> int:
        """Length of the reward vector."""
        return len(self.reward_terms)

    @property
    def reward_space(self) -> Box:
        """Space of one environment's reward vector."""
        return Box(-np.inf, np.inf, (self.reward_dim,), np.float32)

    @property
    def reward_weights(self) -> NDArray[np.float64]:
        """The scalar environment's current weights, ``float64 [reward_dim]``, in fresh memory."""
        return np.array(list(self.process.reward.weights_now().values()))


class MOTaildropEnv(_TermVector, TaildropEnv):
    """Choose how many tokens each clip of a scene deserves, with several objectives.

    ## Description
    `vaportok/Taildrop-v0` with a reward vector, one entry per reward term, for multi-objective agents. It follows
    MO-Gymnasium's convention (`reward_space`, `reward_dim`): MO-Gymnasium's wrappers work; it need not be installed.

    ```python
    import gymnasium
    import vaportok_rl

    env = gymnasium.make("vaportok/MO-Taildrop-v0", path_length=4)
    env.reset(seed=0)
    observation, rewards, terminated, truncated, info = env.step(15)
    print(dict(zip(env.unwrapped.reward_terms, rewards)))
    print(rewards @ env.unwrapped.reward_weights)  # the reward of vaportok/Taildrop-v0
    env.close()
    ```

    ## Action Space
    As in `vaportok/Taildrop-v0`: `Discrete(K)`, action `a` keeps `n_tokens = a + 1` tokens.

    ## Observation Space
    As in `vaportok/Taildrop-v0`, by the `obs` argument; `Box(-1e6, 1e6, (K, D), float32)` latents by default.

    ## Rewards
    `float32 [reward_dim]`: the reward of each term at this step, before its weight. `reward_terms` names the entries:
    `efficiency`, `penalty`, `diversity`, `reconstruction`, `generation`, then the optional terms that `reward` names. A
    clip term is paid at its step, divided by L; a path term at the last step (0 before). The dot product of the
    episode's sum with `reward_weights` (the weights in `reward`, 1 by default) is the return of `vaportok/Taildrop-v0`.
    `reward_space` is an unbounded `Box` of that shape.

    ```python
    import gymnasium
    import numpy as np

    env = gymnasium.make("vaportok_rl:vaportok/MO-Taildrop-v0", path_length=4)
    env.reset(seed=0)
    total = sum(env.step(action)[1] for action in (3, 60, 15, 30))
    assert np.isclose(total[env.unwrapped.reward_terms.index("efficiency")], 1 - np.mean([4, 61, 16, 31]) / 64)
    ```

    ## Starting State
    As in `vaportok/Taildrop-v0`.

    ## Episode End
    The episode terminates after L decisions; it is never truncated.

    ## Information
    As in `vaportok/Taildrop-v0`; `reward_terms` holds the terms, not divided by L.

    ## Arguments
    As in `vaportok/Taildrop-v0`. Weights only change `reward_weights`. Naming an optional term also adds it to the
    vector.

    ## Vectorized environment
    `MOTaildropVectorEnv`, whose rewards are `float32 [num_envs, reward_dim]`, through
    `gymnasium.make_vec("vaportok/MO-Taildrop-v0", num_envs=8, vectorization_mode="vector_entry_point")`. Gymnasium's
    `"sync"` and `"async"` vector environments support scalar rewards only; for vectors, use MO-Gymnasium's
    `MOSyncVectorEnv`.

    ## Version History
    - v0: first release.
    """

    def _paid(self, outcome: StepOutcome) -> Any:
        return outcome.payments[0, 0].copy()


class MOTaildropVectorEnv(_TermVector, TaildropVectorEnv):
    """`TaildropVectorEnv` with a reward vector, as in `MOTaildropEnv`: rewards are ``float32 [num_envs, reward_dim]``.

    For the arguments see `TaildropVectorEnv`.
    """

    def _paid(self, outcome: StepOutcome) -> NDArray[np.floating]:
        return outcome.payments.reshape(self.num_envs, self.reward_dim)
