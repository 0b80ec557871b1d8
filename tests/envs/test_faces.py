"""The scalar, vector, SB3 and tensor interfaces give bitwise the same rewards, here and in another process."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from vaportok_rl.envs import TaildropEnv, TaildropProcess, TaildropVecEnv, TaildropVectorEnv

LENGTH, GROUP = 4, 3
SETTINGS: dict[str, Any] = {
    "path_length": LENGTH,
    "reward": {"weights": {"efficiency": 0.7, "diversity": 1.3, "prior_bits": 0.2, "log_mse": 0.1}},
}
ACTIONS = np.random.default_rng(9).integers(0, 16, (LENGTH, 2, GROUP))  # [L, P, G]


def scalar_rewards(world: str) -> np.ndarray:
    rewards = np.zeros(ACTIONS.shape)
    env = TaildropEnv(tokenizer=world, **SETTINGS)
    for p, g in np.ndindex(2, GROUP):
        env.reset(seed=30 + p)
        rewards[:, p, g] = [env.step(action)[1] for action in ACTIONS[:, p, g]]
    return rewards


def vector_rewards(world: str) -> np.ndarray:
    env = TaildropVectorEnv(2 * GROUP, group_size=GROUP, tokenizer=world, **SETTINGS)
    env.reset(seed=30)
    return np.stack([env.step(row.reshape(-1))[1] for row in ACTIONS]).reshape(ACTIONS.shape)


def sb3_rewards(world: str) -> np.ndarray:
    env = TaildropVecEnv(2 * GROUP, group_size=GROUP, tokenizer=world, **SETTINGS)
    env.seed(30)
    env.reset()
    return np.stack([env.step(row.reshape(-1))[1] for row in ACTIONS]).reshape(ACTIONS.shape)


def tensor_rewards(world: str) -> tuple[np.ndarray, np.ndarray]:
    """Rewards by decision, and of whole paths ``[P, G]``."""
    process = TaildropProcess(tokenizer=world, **SETTINGS)
    vector = TaildropVectorEnv(2 * GROUP, group_size=GROUP, tokenizer=world, **SETTINGS)
    vector.seed_groups(30)
    scene = process.sample_scene(vector.generators)
    n_tokens = torch.from_numpy(ACTIONS + 1).permute(2, 1, 0).contiguous()
    result = process.reward(process.engine.score(scene, n_tokens))
    return result.per_decision.permute(2, 1, 0).numpy(), result.total.T.numpy()


def test_every_face_pays_the_same(tiny_world: str) -> None:
    scalar = scalar_rewards(tiny_world)
    assert np.array_equal(vector_rewards(tiny_world), scalar)
    # SB3 keeps rewards as float32, and that is what they are.
    assert np.array_equal(sb3_rewards(tiny_world), scalar)
    by_decision, by_path = tensor_rewards(tiny_world)
    assert np.array_equal(by_decision, scalar)
    np.testing.assert_allclose(scalar.sum(0), by_path, rtol=1e-6)


def test_steps_add_up_to_the_path_reward_of_the_shipped_world() -> None:
    paths, length = 4, 8
    process = TaildropProcess(path_length=length)
    envs = TaildropVectorEnv(paths, path_length=length)
    envs.seed_groups(12)
    scene = process.sample_scene(envs.generators)
    n_tokens = torch.from_numpy(np.random.default_rng(3).integers(1, process.tokens + 1, (paths, length)))
    envs.reset(seed=12)
    returns = sum(envs.step(row.numpy() - 1)[1] for row in n_tokens.T)
    by_path = process.reward(process.engine.score(scene, n_tokens[None])).total[0]
    np.testing.assert_allclose(returns, by_path.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("face", ["TaildropVectorEnv", "MOTaildropVectorEnv"])
def test_same_seed_same_bits_in_another_process(tiny_world: str, face: str) -> None:
    program = (
        f"import hashlib, numpy as np, torch\nfrom vaportok_rl.envs import {face}\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"env = {face}(4, group_size=2, tokenizer={tiny_world!r}, path_length=2, obs=('latents', 'codes'))\n"
        "digest = hashlib.sha256()\n"
        "def note(value):\n"
        "    if isinstance(value, dict):\n"
        "        for name in sorted(value): note(value[name])\n"
        "    elif isinstance(value, np.ndarray) and value.dtype == object:\n"
        "        for part in value: note(part)\n"
        "    else: digest.update(value.tobytes() if hasattr(value, 'tobytes') else str(value).encode())\n"
        "note(env.reset(seed=4)[0])\n"
        "rng = np.random.default_rng(1)\n"
        "for _ in range(5):\n"
        "    for value in env.step(rng.integers(0, 16, 4)): note(value)\n"
        "print(digest.hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    here: dict[str, Any] = {"print": lambda text: runs.append(text + "\n")}
    exec(program, here)
    assert runs[0] == runs[1] == runs[2]
