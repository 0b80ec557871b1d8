"""The Gymnasium and Stable-Baselines3 faces of `TensorEnv` give its numbers and pass the public checkers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env

from vaportok_rl.envs import Purse, TaildropProcess, TensorEnv
from vaportok_rl.envs.tensor.faces import TensorGymEnv, TensorVecEnv


@pytest.fixture(scope="module")
def env(full_table: Path) -> TensorEnv:
    process = TaildropProcess(table=str(full_table), path_length=3, obs="complexity")
    return TensorEnv(process, window=1, purse=Purse(5, 3, 8))


def test_the_public_checkers(env: TensorEnv) -> None:
    check_env(TensorGymEnv(env), skip_render_check=True)
    check_sb3_env(TensorGymEnv(env))


@pytest.mark.parametrize("vector", [False, True])
def test_the_scalar_face(env: TensorEnv, vector: bool) -> None:
    face = TensorGymEnv(env, vector)
    with pytest.raises(RuntimeError, match="reset"):
        face.step(0)
    seen, _ = face.reset(seed=7)
    state = env.start(face.state.rows)
    for step, action in enumerate((9, 0, 15)):
        assert np.array_equal(seen, env.observe(state)[0].numpy())
        assert np.array_equal(face.action_masks(), env.action_masks(state)[0].numpy())
        seen, reward, done, truncated, info = face.step(action)
        state, terms = env.step_terms(state, torch.tensor([action]))
        np.testing.assert_allclose(reward, terms[0] if vector else terms.sum().item(), rtol=1e-6)
        assert info["n_tokens"] == state.n_tokens[0, step]
        assert (done, truncated) == (step == 2, False)
    with pytest.raises(ValueError, match="16"):
        face.step(16)


def test_the_vector_face(env: TensorEnv) -> None:
    face = TensorVecEnv(env, 4, seed=1)
    face.seed(3)
    first = face.reset()
    face.seed(3)
    assert np.array_equal(face.reset(), first)
    state = face._state
    for step in range(4):  # one more than an episode
        actions = np.array([0, 3, 7, 15])
        masks = np.stack(face.env_method("action_masks"))
        assert np.array_equal(masks, env.action_masks(state).numpy())
        shown, rewards, dones, infos = face.step(actions)
        state, expected = env.step(state, torch.from_numpy(actions))
        assert np.array_equal(rewards, expected.numpy())
        assert dones.all() == dones.any() == (step == 2)
        if step == 2:
            assert np.array_equal(infos[1]["terminal_observation"], env.observe(state)[1].numpy())
            state = face._state
            assert state.step == 0
        assert np.array_equal(shown, env.observe(state).numpy())
