"""Importing the package registers its environments, and loads nothing heavy."""

import subprocess
import sys

import gymnasium

from vaportok_rl.registration import TAILDROP_ID, register_environments


def test_registered_by_entry_point_strings() -> None:
    spec = gymnasium.spec(TAILDROP_ID)
    assert spec.entry_point == "vaportok_rl.envs.taildrop_env:TaildropEnv"
    assert spec.vector_entry_point == "vaportok_rl.envs.vector_env:TaildropVectorEnv"
    # A limit would wrap the environment in TimeLimit, which truncates what must terminate.
    assert spec.max_episode_steps is None


def test_registering_twice_does_nothing() -> None:
    spec = gymnasium.spec(TAILDROP_ID)
    register_environments()
    assert gymnasium.spec(TAILDROP_ID) is spec


def test_import_is_light() -> None:
    program = "import sys, vaportok_rl; print('torch' in sys.modules, 'stable_baselines3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_spec_survives_json(tiny_world: str) -> None:
    env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=2, reward={"weights": {"diversity": 0.0}})
    spec = gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json())
    again = gymnasium.make(spec)
    env.reset(seed=2)
    again.reset(seed=2)
    assert env.step(5)[1] == again.step(5)[1]
