"""Four paths of three clips."""

import numpy as np
import pytest

from vaportok_rl.envs import Scene, TaildropProcess


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, path_length=3)


@pytest.fixture(scope="module")
def scene(process: TaildropProcess) -> Scene:
    return process.sample_scene([np.random.default_rng(seed) for seed in range(4)])
