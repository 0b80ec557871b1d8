"""The Stable-Baselines3 face: a `VecEnv` over the vector environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from vaportok_rl.envs.vector_env import TaildropVectorEnv


class TaildropVecEnv(VecEnv):
    """`TaildropVectorEnv` for Stable-Baselines3: its and sb3-contrib's algorithms run on it unmodified.

    ``env_method("action_masks")`` serves `MaskablePPO`, and ``render_mode="rgb_array"`` `VecVideoRecorder`. Each step
    makes one copy from the device to the host, which Stable-Baselines3's NumPy buffers need; agents that stay on the
    device use the tensor face (`vector_env.process`).

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
                f"Expected autoreset_mode SAME_STEP, got {self.vector_env.autoreset_mode.name}; Stable-Baselines3 "
                "relies on finished environments being reset. Leave the argument out."
            )
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self.vector_env.single_observation_space, self.vector_env.single_action_space)
        self.metadata = self.vector_env.metadata

    def reset(self) -> VecEnvObs:
        """Begins new scenes, with the seed set by `seed` if there is one."""
        seeds = list(self._seeds)
        seed = None if seeds[0] is None else int(seeds[0])
        observations, _ = self.vector_env.reset(seed=seed)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions of the coming `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Steps; finished environments are reset and keep their last observation in ``terminal_observation``."""
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
        """The same attribute for each environment."""
        return [getattr(self.vector_env, attr_name) for _ in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Whether the vector environment has the attribute."""
        return hasattr(self.vector_env, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the vector environment; it holds for all environments."""
        setattr(self.vector_env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the vector environment once.

        Returns:
            For each chosen environment its row of the action masks; of any other method, the one result.
        """
        result = getattr(self.vector_env, method_name)(*method_args, **method_kwargs)
        return [result[env] if method_name == "action_masks" else result for env in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped on its own."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The pictures of the last decisions; see `TaildropVectorEnv.render`. None without ``rgb_array``."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.vector_env.render()  # type: ignore[return-value]  # the mode decides what it returns

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        return super()._get_indices(indices)


def make_sb3_env(num_envs: int = 8, **settings: Any) -> VecMonitor:
    """A monitored `TaildropVecEnv`: Stable-Baselines3 then logs returns and episode lengths.

    Args:
        num_envs: see `TaildropVectorEnv`.
        **settings: further arguments of `TaildropVectorEnv`.
    """
    return VecMonitor(TaildropVecEnv(num_envs, **settings))
