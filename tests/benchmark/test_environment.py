"""The tasks through `gymnasium.make`."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import vaportok_rl
from vaportok_rl import registration
from vaportok_rl.benchmark import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_an_id(pinned: dict[str, Path], name: str) -> None:
    gymnasium.register_envs(vaportok_rl)
    task = TASKS[name]
    assert tuple(TASKS) == registration.TASKS
    env = gymnasium.make(f"vaportok-benchmark/{name}")
    observation, _ = env.reset(seed=1)
    assert observation in env.observation_space
    total, done, steps = 0, False, 0
    while not done:
        observation, reward, done, _, info = env.step(7)
        total, steps = total + reward, steps + 1
        assert 1 <= info["n_tokens"] <= 8
    assert steps == task.path_length
    if task.objectives:
        assert total.shape == (env.unwrapped.reward_dim,)
        assert total[0] == pytest.approx(1 - 8 / 16)  # efficiency, unweighted
        assert all(point.shape == total.shape for point in env.unwrapped.pareto_front())
    else:
        assert np.isfinite(total)
        with pytest.raises(ValueError, match="pareto"):
            env.unwrapped.pareto_front()
