"""Every registered environment and every kind of observation against Gymnasium's, SB3's and our own checker."""

import warnings
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_sb3_env

import vaportok_rl  # noqa: F401  (registers the environments)
from vaportok_rl.envs import check_vector_env
from vaportok_rl.envs.settings import OBSERVATIONS
from vaportok_rl.registration import MO_TAILDROP_ID, TAILDROP_ID

IDS = sorted(name for name in gymnasium.registry if name.startswith("vaportok/"))
EVERY_OBS = [*OBSERVATIONS, ("latents", "complexity"), ("codes", "clip", "complexity")]


class DotProduct(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The scalar that the weights make of the reward vector."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, rewards, terminated, truncated, info = self.env.step(action)
        return observation, float(rewards @ self.env.unwrapped.reward_weights), terminated, truncated, info


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.parametrize("flatten_obs", [False, True], ids=["shaped", "flat"])
@pytest.mark.parametrize("obs", EVERY_OBS, ids=str)
@pytest.mark.parametrize("name", IDS)
def test_gymnasium(tiny_world: str, name: str, obs: str | tuple[str, ...], flatten_obs: bool) -> None:
    env = gymnasium.make(name, tokenizer=tiny_world, path_length=3, obs=obs, flatten_obs=flatten_obs)
    # Gymnasium's checker wants scalar rewards; nothing else about a multi-objective environment may worry it.
    with warnings.catch_warnings():
        if name == MO_TAILDROP_ID:
            warnings.filterwarnings("ignore", message=".*The reward returned by `step\\(\\)` must be a float")
        # Rendering is checked once, and with render_mode="human" needs a window.
        check_env(env.unwrapped, skip_render_check=obs != "complexity" or find_spec("pygame") is None)


@pytest.mark.parametrize("obs", EVERY_OBS, ids=str)
@pytest.mark.parametrize("name", IDS)
def test_stable_baselines(tiny_world: str, name: str, obs: str | tuple[str, ...]) -> None:
    env = gymnasium.make(name, tokenizer=tiny_world, path_length=2, obs=obs, flatten_obs=True).unwrapped
    check_sb3_env(env if name == TAILDROP_ID else DotProduct(env))


@pytest.mark.parametrize("obs", EVERY_OBS, ids=str)
def test_stable_baselines_has_one_remark_about_shaped_observations(tiny_world: str, obs: str | tuple[str, ...]) -> None:
    env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=2, obs=obs).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_sb3_env(env)
    shaped = {"latents", "clip"} & ({obs} if isinstance(obs, str) else set(obs))
    assert len(caught) == len(shaped)
    assert all("recommend you to flatten the observation" in str(remark.message) for remark in caught)


@pytest.mark.parametrize(
    ("obs", "mode", "length"),
    [
        *((obs, AutoresetMode.SAME_STEP, 2) for obs in EVERY_OBS),
        (("latents", "codes"), AutoresetMode.DISABLED, 2),
        *(("complexity", mode, 1) for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", IDS)
def test_vector(tiny_world: str, name: str, obs: str | tuple[str, ...], mode: AutoresetMode, length: int) -> None:
    envs = gymnasium.make_vec(
        name,
        num_envs=4,
        vectorization_mode="vector_entry_point",
        group_size=2,
        tokenizer=tiny_world,
        path_length=length,
        obs=obs,
        autoreset_mode=mode,
    )
    check_vector_env(envs, steps=5)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_vector_of_scalar_environments(tiny_world: str, mode: AutoresetMode) -> None:
    envs = gymnasium.make_vec(
        TAILDROP_ID,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        tokenizer=tiny_world,
        path_length=2,
        obs=("latents", "codes"),
    )
    check_vector_env(envs, steps=5)
    envs.close()


def test_flat_observations_are_the_same_numbers(tiny_world: str) -> None:
    shaped, flat = (
        gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=2, obs=("latents", "clip"), flatten_obs=flatten)
        for flatten in (False, True)
    )
    first, second = shaped.reset(seed=3)[0], flat.reset(seed=3)[0]
    for name, value in first.items():
        assert second[name].shape == (value.size,)
        assert np.array_equal(second[name], value.ravel())
