"""Importing the package registers its environments, and loads nothing heavy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from vaportok_rl.registration import MO_TAILDROP_ID, TAILDROP_ID, register_environments


def test_registered_by_entry_point_strings() -> None:
    spec = gymnasium.spec(TAILDROP_ID)
    assert spec.entry_point == "vaportok_rl.envs.taildrop_env:TaildropEnv"
    assert spec.vector_entry_point == "vaportok_rl.envs.vector_env:TaildropVectorEnv"
    spec = gymnasium.spec(MO_TAILDROP_ID)
    assert spec.entry_point == "vaportok_rl.envs.multi_objective:MOTaildropEnv"
    assert spec.vector_entry_point == "vaportok_rl.envs.multi_objective:MOTaildropVectorEnv"
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


SETTINGS: dict[str, Any] = {
    "path_length": 3,
    "min_tokens": 2,
    "token_budget": 30,
    "reward": {"weights": {"diversity": 0.0, "log_mse": 0.5}, "terms": ["custom_terms:halves"]},
    "obs": ["codes", "complexity"],
    "flatten_obs": True,
    "split": "test",
    "render_mode": "rgb_array",
}


@pytest.fixture
def custom_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "custom_terms.py").write_text("def halves(outcome):\n    return outcome.n_tokens.float() / 2\n")
    monkeypatch.syspath_prepend(tmp_path)


def assert_same_rollout(env: Any, again: Any, actions: Any) -> None:
    first, second = env.reset(seed=2)[0], again.reset(seed=2)[0]
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for action in actions:
        one, other = env.step(action), again.step(action)
        assert np.array_equal(one[1], other[1])
        assert all(np.array_equal(one[0][name], other[0][name]) for name in one[0])


@pytest.mark.parametrize("name", [TAILDROP_ID, MO_TAILDROP_ID])
@pytest.mark.usefixtures("custom_term")
def test_spec_survives_json(tiny_world: str, name: str) -> None:
    env = gymnasium.make(name, tokenizer=tiny_world, **SETTINGS)
    again = EnvSpec.from_json(env.spec.to_json()).make()
    assert again.unwrapped.process.settings == env.unwrapped.process.settings
    assert again.unwrapped.process.reward.names[-2:] == ("log_mse", "halves")
    assert_same_rollout(env, again, (0, 15, 7))


@pytest.mark.usefixtures("custom_term")
def test_vector_spec_survives_json(tiny_world: str) -> None:
    vector: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "group_size": 2, "autoreset_mode": "Disabled"}
    envs = gymnasium.make_vec(TAILDROP_ID, num_envs=4, tokenizer=tiny_world, **vector, **SETTINGS)
    kwargs = EnvSpec.from_json(envs.spec.to_json()).kwargs
    again = gymnasium.make_vec(TAILDROP_ID, **kwargs)
    assert again.autoreset_mode is envs.autoreset_mode
    assert_same_rollout(envs, again, np.random.default_rng(0).integers(0, 16, (3, 4)))


def test_processes_of_their_own_pay_the_same(tiny_world: str) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 2}
    vector = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theirs = gymnasium.make_vec(f"vaportok_rl:{TAILDROP_ID}", 2, "async", vector_kwargs=vector, **settings)
    ours = gymnasium.make_vec(TAILDROP_ID, 2, **settings)
    try:
        assert np.array_equal(theirs.reset(seed=5)[0], ours.reset(seed=5)[0])
        for row in ((3, 12), (0, 15), (7, 7)):
            assert np.array_equal(theirs.step(np.array(row))[1], ours.step(np.array(row))[1])
    finally:
        theirs.close()


def test_make_without_importing_the_package(tiny_world: str) -> None:
    program = (
        "import gymnasium\n"
        f"env = gymnasium.make('vaportok_rl:{TAILDROP_ID}', tokenizer={tiny_world!r}, path_length=1)\n"
        "env.reset(seed=0)\n"
        "print(env.step(3)[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
