"""The vector environment as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from vaportok_rl.envs.vector_env import TaildropVectorEnv


class TaildropVecEnv(VecEnv):
    """`TaildropVectorEnv` as a `VecEnv`: algorithms of Stable-Baselines3 and sb3-contrib run on it unmodified.

    It provides the action masks of `MaskablePPO` and, with ``render_mode="rgb_array"``, frames for `VecVideoRecorder`.
    Each step copies to the host once, for Stable-Baselines3's NumPy buffers; agents that stay on the device use
    `vector_env.process`.

    Args:
        num_envs: see `TaildropVectorEnv`.
        **settings: further arguments of `TaildropVectorEnv`.

    Raises:
        ValueError: ``autoreset_mode`` is not SAME_STEP, or an argument of `TaildropVectorEnv` is wrong.
    """

    def __init__(self, num_envs: int = 8, **settings: Any) -> None:
        self.vector_env = TaildropVectorEnv(num_envs, **settings)
        if self.vector_env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Expected autoreset_mode SAME_STEP, got {self.vector_env.autoreset_mode.name}; leave it out: "
                "Stable-Baselines3 requires automatic resets."
            )
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self.vector_env.single_observation_space, self.vector_env.single_action_space)
        self.metadata = self.vector_env.metadata

    def reset(self) -> VecEnvObs:
        """Begins new episodes, with the seed from `seed` if one was set."""
        seeds = list(self._seeds)
        seed = None if seeds[0] is None else int(seeds[0])
        observations, _ = self.vector_env.reset(seed=seed)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: np.ndarray) -> None:
        """Stores the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps; finished environments are reset, with their last observation in ``terminal_observation``."""
        observations, rewards, terminated, _, infos = self.vector_env.step(self._actions)
        rows: list[dict[str, Any]] = []
        for env in range(self.num_envs):
            of = infos["final_info"] if terminated[env] else infos
            row = {name: of[name][env] for name in of if not name.startswith("_") and isinstance(of[name], np.ndarray)}
            row.pop("final_obs", None)
            row["reward_terms"] = {
                name: value[env] for name, value in of["reward_terms"].items() if not name.startswith("_")
            }
            if terminated[env]:
                row["terminal_observation"] = infos["final_obs"][env]
                row["TimeLimit.truncated"] = False
            rows.append(row)
        return observations, rewards.astype(np.float32), terminated, rows

    def close(self) -> None:
        """Closes the vector environment."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, once per environment."""
        return [getattr(self.vector_env, attr_name) for _ in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Whether the vector environment has the attribute."""
        return hasattr(self.vector_env, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the vector environment, and so of all environments."""
        setattr(self.vector_env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the vector environment once.

        Returns:
            Per chosen environment: its row of ``action_masks``; the same result for any other method.
        """
        result = getattr(self.vector_env, method_name)(*method_args, **method_kwargs)
        return [result[env] if method_name == "action_masks" else result for env in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """False: no environment has a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Pictures of the last decisions; see `TaildropVectorEnv.render`. None without ``rgb_array``."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.vector_env.render()  # type: ignore[return-value]  # the mode decides what it returns


def make_sb3_env(num_envs: int = 8, **settings: Any) -> VecMonitor:
    """A `TaildropVecEnv` in a `VecMonitor`, so that Stable-Baselines3 logs returns and episode lengths.

    Args:
        num_envs: see `TaildropVectorEnv`.
        **settings: further arguments of `TaildropVectorEnv`.
    """
    return VecMonitor(TaildropVecEnv(num_envs, **settings))
