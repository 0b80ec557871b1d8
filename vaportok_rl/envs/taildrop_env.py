"""The scalar Gymnasium environment."""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vaportok_rl.envs.actions import check_seed, checked_actions
from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.render.screen import RENDER_FPS, Screen
from vaportok_rl.envs.settings import RENDER_MODES, TaildropArguments
from vaportok_rl.envs.walk import GroupWalk, StepOutcome


class TaildropEnv(gymnasium.Env[Any, Any]):
    """Choose how many tokens each clip of a scene deserves.

    ## Description
    A frozen video tokenizer turns each clip into K ordered tokens, most important first. An episode shows L clips. For
    each clip the agent picks how many tokens to keep; the clip is decoded from those, and named reward terms score the
    choice. Actions never change later clips; only the path term `diversity` couples them. Use γ = 1. Source: the
    VaporTok supplement.

    ```python
    import gymnasium
    import vaportok_rl

    env = gymnasium.make("vaportok/Taildrop-v0", path_length=4)
    observation, info = env.reset(seed=0)
    terminated = False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    env.close()
    ```

    ## Action Space
    `Discrete(K)`. Action `a` keeps `n_tokens = a + 1` tokens (tokens `0 … a`); K = 64 for `nano`.

    `min_tokens`, `max_tokens` and `token_budget` restrict the lengths. `action_masks()` returns the actions allowed now
    as `bool [K]`, under the name that sb3-contrib's `MaskablePPO` expects. Agents without masks work too: a forbidden
    action keeps the nearest allowed length, which `info["n_tokens"]` reports and the reward scores. With a budget, at
    step j (from 0), after `s` tokens, lengths
    `min_tokens … min(max_tokens, token_budget - s - min_tokens * (L - 1 - j))` are allowed.

    ## Observation Space
    The next clip, in the form that the `obs` argument selects:

    | `obs` | space | meaning |
    |---|---|---|
    | `"latents"` (default) | `Box(-1e6, 1e6, (K, D), float32)` | the encoder's latents, read by the taildrop module |
    | `"complexity"` | `Box(0, 1, (2,), float32)` | spatial and temporal complexity as quantiles of the training clips |
    | `"codes"` | `Box(0, V-1, (K,), int64)` | codebook indices |
    | `"clip"` | `Box(0, 255, (C, T, H, W), uint8)` | the video itself |

    A sequence of names gives a `Dict` space. `flatten_obs=True` flattens each array to a vector, as Stable-Baselines3's
    checker and many MLP agents expect. The last step returns the last clip again.

    ## Rewards
    The weighted sum of the terms below; weights are 1 by default. A clip term is paid at its step, divided by L; a
    path term is paid at the last step. The undiscounted return equals the path reward.

    | term | kind | value |
    |---|---|---|
    | `efficiency` | clip | `1 - n/K` |
    | `penalty` | clip | `-((t - n)/t)^2` below `t = K/8` tokens, else 0 (Eq. 10) |
    | `diversity` | path | `min(std(n/K), 0.1)` over the path |
    | `reconstruction` | clip | `-60 * mse` |
    | `generation` | clip | top-5 accuracy of the autoregressive prior on the kept tokens |

    The constants are arguments of `VaporReward`; `{"preset": "paper"}` changes all of them. Giving an optional term a
    weight adds it, and custom terms are plain functions; see `VaporReward`. `vaportok/MO-Taildrop-v0` returns the terms
    as a vector.

    ```python
    import gymnasium

    env = gymnasium.make(
        "vaportok_rl:vaportok/Taildrop-v0",
        reward={"weights": {"diversity": 0.0, "efficiency": 2.0}, "scale": 40.0},
        token_budget=128,
        min_tokens=4,
    )
    env.reset(seed=0)
    print(env.unwrapped.action_masks())
    ```

    ## Starting State
    L different clips, drawn with the environment's seed. With `ordering="video"`, L consecutive clips of one video,
    starting where the seed decides.

    ## Episode End
    The episode terminates after L decisions; it is never truncated.

    ## Information
    `reset` returns an empty `info`. `step` returns, for the clip just decided, `n_tokens`, `mse`, `psnr` (dB),
    `accuracy`, `clip_id`, `label`, `label_name` and `complexity_score` (0 to 1, from the quantiles of
    `obs="complexity"`); for clips from video files also `file` and `start_frame`; and `reward_terms`, a dictionary of
    the unweighted terms (path terms are 0 before the last step). Integers are `int64`, names `str`, the rest `float32`.

    ## Arguments
    All are keywords and plain data (unless `reward` is an object), so `env.spec.to_json()` works.

    The tokenizer is loaded once per process, however many environments there are; copies and pickles of an environment
    share it.

    See `TaildropSettings`.

    ## Vectorized environment
    `TaildropVectorEnv` scores groups of paths together. `"sync"` and `"async"` vectorization work too. For TorchRL's
    `GymWrapper`, pass `autoreset_mode="Disabled"`, because it resets environments itself.

    ```python
    import gymnasium

    envs = gymnasium.make_vec(
        "vaportok_rl:vaportok/Taildrop-v0", num_envs=8, vectorization_mode="vector_entry_point", group_size=4
    )
    observations, infos = envs.reset(seed=0)
    observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    envs.close()
    ```

    ## Version History
    - v0: first release.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(self, **arguments: Unpack[TaildropArguments]) -> None:
        self.process = TaildropProcess(**arguments)
        self.render_mode = self.process.settings.render_mode
        self.observation_space = self.process.single_observation_space
        self.action_space = self.process.single_action_space
        self._walk = GroupWalk(self.process, group_size=1)
        self._screen = Screen(self.process, 1, self.render_mode)

    @property
    def settings(self) -> dict[str, Any]:
        """All constructor arguments, defaults filled in: ``TaildropEnv(**env.settings)`` is the same environment."""
        return self.process.settings.as_arguments()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a new episode; see `gymnasium.Env.reset`. There are no options.

        Raises:
            TypeError: the seed is not a Python integer.
            ValueError: the seed is negative.
        """
        check_seed(seed)
        super().reset(seed=seed, options=options)
        self._walk.begin([self.np_random])
        self._screen.begin(self._walk)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Keeps ``action + 1`` tokens of the current clip; see the class documentation.

        Raises:
            TypeError: the action is not an integer.
            ValueError: the action is outside 0 … K - 1.
            RuntimeError: `reset` was not called, or the episode is over.
        """
        lengths = checked_actions(action, None, self.process.tokens).reshape(1, 1) + 1
        outcome = self._walk.step(lengths)
        self._screen.decide(outcome)
        info: dict[str, Any] = {name: values[0, 0] for name, values in outcome.info.items()}
        info["reward_terms"] = {name: values[0, 0] for name, values in outcome.terms.items()}
        return self._observation(), self._paid(outcome), bool(outcome.finished[0]), False, info

    def _paid(self, outcome: StepOutcome) -> Any:
        return float(outcome.rewards[0, 0])

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now: ``bool [K]``.

        Raises:
            RuntimeError: `reset` was not called.
        """
        mask: NDArray[np.bool_] = self._walk.action_masks()[0, 0]
        return mask

    def render(self) -> Any:
        """The picture of the last decision, ``uint8 [H', W', 3]``; None without a render mode.

        Raises:
            RuntimeError: `reset` was not called.
        """
        shown = self._screen.render()
        return None if shown is None else shown[0]

    def _observation(self) -> Any:
        shown = {name: np.array(values[0]) for name, values in self._walk.observe().items()}
        return self.process.present(shown)
