"""The benchmark's tasks as Gymnasium environments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from vaportok_rl.benchmark.arena import Arena, Part
from vaportok_rl.envs.tensor.faces import TensorGymEnv


class TaskEnv(TensorGymEnv):
    """A task of the benchmark: choose how many tokens each of eight clips deserves.

    ```python
    import gymnasium
    import vaportok_rl

    env = gymnasium.make("vaportok-benchmark/budget-v1")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(15)  # keeps 16 tokens
    ```

    The tasks, their observations and the protocol are described in docs/benchmark.md. With a reward vector
    (`vaportok-benchmark/pareto-v1`), the reward is ``float32 [reward_dim]``, one entry per objective, as in
    MO-Gymnasium.

    Args:
        task: its name.
        part: ``train``, ``validation`` or ``test``.
        table: folder of its outcome table; the pinned one by default.
        render_mode: None; there is nothing to render.

    Raises:
        ValueError: there is no such task, or the table does not match.
        FileNotFoundError: the table is missing.
    """

    def __init__(
        self, task: str, part: Part = "train", table: str | Path | None = None, render_mode: str | None = None
    ) -> None:
        # The vector holds unweighted objectives.
        ones = (1.0, 1.0, 1.0)
        arena = Arena(task, table)
        self.arena = Arena(task, arena.table, ones) if arena.task.objectives else arena
        super().__init__(self.arena.env(part), vector=bool(self.arena.task.objectives), render_mode=render_mode)
        env = self.tensor_env
        self._places = [env.terms.index(name) for name in self.arena.task.objectives]
        if self._places:
            self.reward_space = Box(-np.inf, np.inf, (len(self._places),), np.float32)
            self.reward_dim = len(self._places)

    def _paid(self, terms: NDArray[np.float32]) -> NDArray[np.float32]:
        return terms[self._places]

    def pareto_front(self, gamma: float = 1.0) -> list[NDArray[np.float64]]:
        """The known Pareto front of undiscounted mean returns on the test scenes (MO-Gymnasium's convention).

        Raises:
            ValueError: the task has a scalar reward, or γ is not 1.
        """
        if not self._places or gamma != 1.0:
            raise ValueError(
                f"Expected a task with objectives and gamma=1, got gamma={gamma}; use vaportok-benchmark/pareto-v1."
            )
        return [np.array(point) for point in self.arena.front("test")]
