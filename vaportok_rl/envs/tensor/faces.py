"""`TensorEnv` behind Gymnasium's and Stable-Baselines3's interfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from vaportok_rl.envs.actions import check_seed, checked_actions
from vaportok_rl.envs.tensor.environment import State, TensorEnv

# Features are standardised; Gymnasium's checker warns about infinite boxes.
_BOUND = 1e6
_SEEDS = 2**62


def observation_space(env: TensorEnv) -> spaces.Box:
    """The space of one path's observation."""
    return spaces.Box(-_BOUND, _BOUND, (env.width,), np.float32)


def _shown(env: TensorEnv, state: State) -> NDArray[np.float32]:
    shown: NDArray[np.float32] = env.observe(state).cpu().numpy().copy()
    return shown


class TensorGymEnv(gymnasium.Env[Any, Any]):
    """One path of a `TensorEnv` as a Gymnasium environment.

    Args:
        env: the environment, or a function that makes it.
        vector: whether the reward is the vector of weighted terms.
        render_mode: None; there is nothing to render.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(
        self, env: TensorEnv | Callable[[], TensorEnv], vector: bool = False, render_mode: str | None = None
    ) -> None:
        self.tensor_env = env if isinstance(env, TensorEnv) else env()
        self.vector, self.render_mode = vector, render_mode
        self.observation_space = observation_space(self.tensor_env)
        self.action_space = spaces.Discrete(self.tensor_env.tokens)
        self._state: State | None = None

    @property
    def state(self) -> State:
        """The current state.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._state is None:
            raise RuntimeError("Expected reset() before step(), got none yet; call env.reset(seed=...) first.")
        return self._state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begins a new episode of random clips."""
        check_seed(seed)
        super().reset(seed=seed)
        self._state = self.tensor_env.reset(int(self.np_random.integers(_SEEDS)), 1)
        return _shown(self.tensor_env, self._state)[0], {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], Any, bool, bool, dict[str, Any]]:
        """Keeps ``action + 1`` tokens of the current clip, clipped to what the purse allows."""
        action = checked_actions(action, None, self.tensor_env.tokens)
        env, at = self.tensor_env, self.state.step
        self._state, payments = env.step_terms(self.state, torch.as_tensor(action, device=env.device)[None])
        terms = payments[0].cpu().numpy().copy()
        kept = int(self._state.n_tokens[0, at])
        done = self._state.step == env.path_length
        reward: Any = self._paid(terms) if self.vector else float(terms.sum(dtype=np.float64))
        info = {"n_tokens": kept, "clip": int(self._state.rows[0, at])}
        return _shown(env, self._state)[0], reward, done, False, info

    def _paid(self, terms: NDArray[np.float32]) -> NDArray[np.float32]:
        """The reward vector from the weighted terms."""
        return terms

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``bool [K]``."""
        masks: NDArray[np.bool_] = self.tensor_env.action_masks(self.state)[0].cpu().numpy().copy()
        return masks


class TensorVecEnv(VecEnv):
    """B paths of a `TensorEnv` as a `VecEnv`, with the action masks of `MaskablePPO`. All paths end together.

    Args:
        env: the environment.
        num_envs: B.
        seed: of the scenes.
    """

    def __init__(self, env: TensorEnv, num_envs: int, seed: int = 0) -> None:
        self.tensor_env = env
        self._rng, self._state = np.random.default_rng(seed), env.reset(0, num_envs)
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, observation_space(env), spaces.Discrete(env.tokens))

    def reset(self) -> VecEnvObs:
        """Begins new episodes, with the seed from `seed` if one was set."""
        if self._seeds[0] is not None:
            self._rng = np.random.default_rng(int(self._seeds[0]))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._state = self.tensor_env.reset(int(self._rng.integers(_SEEDS)), self.num_envs)
        return _shown(self.tensor_env, self._state)

    def step_async(self, actions: np.ndarray) -> None:
        """Stores the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps; after the last clip all paths begin anew."""
        env = self.tensor_env
        self._state, reward = env.step(self._state, torch.as_tensor(self._actions, device=env.device))
        done = self._state.step == env.path_length
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done:
            last = _shown(env, self._state)
            infos = [{"terminal_observation": row, "TimeLimit.truncated": False} for row in last]
            self._state = env.reset(int(self._rng.integers(_SEEDS)), self.num_envs)
        rewards = reward.cpu().numpy().astype(np.float32)
        return _shown(env, self._state), rewards, np.full(self.num_envs, done), infos

    def close(self) -> None:
        """There is nothing to close."""

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``bool [B, K]``."""
        masks: NDArray[np.bool_] = self.tensor_env.action_masks(self._state).cpu().numpy().copy()
        return masks

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """This environment's attribute, once per path."""
        return [getattr(self, attr_name, None) for _ in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Whether this environment has the attribute."""
        return hasattr(self, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of this environment."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method once; each path's row of ``action_masks``, or the same result for every path."""
        result = getattr(self, method_name)(*method_args, **method_kwargs)
        return [result[path] if method_name == "action_masks" else result for path in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """False: no path has a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]
