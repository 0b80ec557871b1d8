"""The scalar Gymnasium face: returns, determinism and refusals."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordEpisodeStatistics

import vaportok_rl
from vaportok_rl.envs import DEFAULT_WEIGHTS, TaildropEnv, shared_world
from vaportok_rl.envs.walk import INFO_KEYS
from vaportok_rl.tokenizer.complexity import clip_complexity

ID = "vaportok/Taildrop-v0"
EVERY_OBS = ["latents", "complexity", "codes", "clip", ("latents", "complexity"), ("codes", "clip", "complexity")]


def rollout(env: gymnasium.Env[Any, Any], actions: Sequence[int], seed: int) -> list[tuple[Any, ...]]:
    """The observations, rewards, flags and infos of one scene."""
    trace: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    trace += [env.step(action) for action in actions]
    return trace


def assert_same(first: Any, second: Any) -> None:
    """Bitwise equality of nested observations and infos, types included."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize("name", [ID, f"vaportok_rl:{ID}"])
def test_make(tiny_world: str, name: str) -> None:
    env = gymnasium.make(name, tokenizer=tiny_world, path_length=2)
    assert isinstance(env.unwrapped, TaildropEnv)
    assert env.action_space == gymnasium.spaces.Discrete(16)
    env.reset(seed=0)
    assert env.step(3)[2:4] == (False, False)
    assert env.step(3)[2:4] == (True, False)


@pytest.mark.parametrize("obs", EVERY_OBS, ids=str)
def test_observation_shows_the_clip_to_decide_about(tiny_world: str, obs: str | tuple[str, ...]) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, obs=obs)
    world = shared_world(tiny_world)
    seen, _ = env.reset(seed=5)
    for _ in range(3):
        after, _, _, _, info = env.step(4)
        clip = env.process.source.batch([int(info["clip_id"])]).clips
        encoded = world.encode(clip)
        shown = seen if isinstance(seen, dict) else {obs: seen}
        assert set(shown) == set(obs if isinstance(obs, tuple) else (obs,))
        for name, value in shown.items():
            if name == "latents":
                np.testing.assert_allclose(value, encoded.latents[0].numpy(), atol=1e-5)
            elif name == "codes":
                assert np.array_equal(value, encoded.codes[0].numpy())
            elif name == "clip":
                assert np.array_equal(value, clip[0].numpy())
            else:
                spatial, temporal = (env.process.engine.encode(clip[None]).complexity[0, 0]).tolist()
                # The tiny world's quantile tables are straight lines: 0 … 8 bits, 0 … 20 grey levels.
                assert value.tolist() == pytest.approx([min(spatial / 8, 1), min(temporal / 20, 1)], abs=1e-5)
        seen = after
    # After the last decision the last clip is shown once more.
    assert_same(after, seen)


def test_info_is_about_the_clip_that_was_decided_about(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3)
    env.reset(seed=1)
    ids = []
    for action in (0, 7, 15):
        _, _, _, _, info = env.step(action)
        assert {*info} == {*INFO_KEYS, "reward_terms"}
        assert info["label_name"] == env.process.source.label_names[info["label"]]
        shown = env.process.engine.complexity_scale.score(
            clip_complexity(env.process.source[int(info["clip_id"])][None])
        )
        assert info["complexity_score"] == pytest.approx(shown.item(), abs=1e-5)
        assert info["n_tokens"] == action + 1
        assert [info[name].dtype for name in ("n_tokens", "clip_id", "label")] == [np.int64] * 3
        assert [info[name].dtype for name in ("mse", "psnr", "accuracy")] == [np.float32] * 3
        assert list(info["reward_terms"]) == list(DEFAULT_WEIGHTS)
        batch = env.process.source.batch([int(info["clip_id"])])
        assert info["label"] == batch.labels[0]
        world = shared_world(tiny_world)
        decoded = world.decode(world.encode(batch.clips).codes, action + 1)
        mse = (decoded - batch.clips.float() / 255).square().mean().item()
        assert info["mse"] == pytest.approx(mse, rel=1e-5)
        assert info["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
        assert info["reward_terms"]["reconstruction"] == pytest.approx(-60 * mse, rel=1e-5)
        assert info["reward_terms"]["efficiency"] == pytest.approx(1 - (action + 1) / 16)
        ids.append(int(info["clip_id"]))
    assert len(set(ids)) == 3
    assert info["reward_terms"]["diversity"] == pytest.approx(min(0.1, np.std([1 / 16, 8 / 16, 1.0])))


def test_path_terms_are_zero_before_the_last_step(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3)
    env.reset(seed=1)
    assert [env.step(action)[4]["reward_terms"]["diversity"] > 0 for action in (0, 9, 15)] == [False, False, True]


@pytest.mark.parametrize(
    "weights", [{}, {"diversity": 3.0, "generation": -2.0, "efficiency": 0.0}], ids=["ones", "mixed"]
)
def test_return_is_the_path_reward_of_the_tensor_face(tiny_world: str, weights: dict[str, float]) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=5, reward={"weights": weights})
    for seed in range(4):
        actions = np.random.default_rng(seed).integers(0, 16, 5).tolist()
        trace = rollout(env, actions, seed)
        rewards = [step[1] for step in trace[1:]]
        assert all(type(reward) is float for reward in rewards)
        ids = torch.tensor([step[4]["clip_id"].item() for step in trace[1:]])
        scene = env.process.engine.encode(env.process.source.batch(ids).clips[None])
        outcome = env.process.engine.score(scene, torch.tensor(actions)[None, None] + 1)
        assert sum(rewards) == pytest.approx(env.process.reward(outcome).total.item(), abs=1e-5)


@pytest.mark.parametrize("obs", ["latents", ("clip", "codes")], ids=str)
def test_same_seed_same_bits(tiny_world: str, obs: str | tuple[str, ...]) -> None:
    actions = [3, 15, 0, 8]
    first, second = (TaildropEnv(tokenizer=tiny_world, path_length=4, obs=obs) for _ in range(2))
    traces = [rollout(first, actions, 11), rollout(second, actions, 11), rollout(first, actions, 11)]
    assert_same(traces[0], traces[1])
    assert_same(traces[0], traces[2])
    other = rollout(first, actions, 12)
    assert [step[4]["clip_id"] for step in other[1:]] != [step[4]["clip_id"] for step in traces[0][1:]]


def test_same_seed_same_bits_in_another_process(tiny_world: str) -> None:
    program = (
        "import gymnasium, vaportok_rl, torch\n"
        f"env = gymnasium.make('{ID}', tokenizer={tiny_world!r}, path_length=3)\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "obs, _ = env.reset(seed=21)\n"
        "print(obs.tobytes().hex()[:64], *[float(env.step(a)[1]).hex() for a in (2, 9, 15)])\n"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    env = gymnasium.make(ID, tokenizer=tiny_world, path_length=3)
    obs, _ = env.reset(seed=21)
    here = [obs.tobytes().hex()[:64], *[float(env.step(action)[1]).hex() for action in (2, 9, 15)]]
    assert there.stdout.split() == here


def test_reset_without_a_seed_goes_on_with_the_stream(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    stream = np.random.default_rng(0)
    expected = [stream.choice(len(env.process.source), 1, replace=False).item() for _ in range(3)]
    got = []
    for scene in range(3):
        if scene:
            env.reset()
        got.append(env.step(0)[4]["clip_id"].item())
    assert got == expected


def test_returned_arrays_are_never_shared(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3)
    arrays = [env.reset(seed=0)[0], *(env.step(1)[0] for _ in range(3)), env.reset()[0]]
    for i, first in enumerate(arrays):
        assert not any(np.shares_memory(first, second) for second in arrays[:i])
    kept = arrays[2].copy()
    arrays[1][:] = 7.0
    assert np.array_equal(arrays[2], kept)


def test_record_episode_statistics(tiny_world: str) -> None:
    env = RecordEpisodeStatistics(gymnasium.make(ID, tokenizer=tiny_world, path_length=3))
    env.reset(seed=0)
    rewards, info = [], {}
    for action in (1, 5, 9):
        _, reward, _, _, info = env.step(action)
        rewards.append(reward)
    assert info["episode"]["l"] == 3
    assert info["episode"]["r"] == pytest.approx(sum(rewards))


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3)], ids=lambda action: type(action).__name__)
def test_every_kind_of_integer_is_an_action(tiny_world: str, action: Any) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    assert env.step(action)[4]["n_tokens"] == 4


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (1.0, TypeError, "Expected integer actions"),
        (np.float32(2), TypeError, "Expected integer actions"),
        (True, TypeError, "Expected integer actions"),
        (None, TypeError, "Expected integer actions"),
        ("3", TypeError, "Expected integer actions"),
        (-1, ValueError, r"Expected actions in 0…15, got -1"),
        (16, ValueError, r"Expected actions in 0…15, got 16"),
        (np.array([1]), ValueError, r"Expected actions of shape \(\), got \(1,\)"),
    ],
    ids=str,
)
def test_bad_actions_are_refused(tiny_world: str, action: Any, error: type[Exception], message: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.step(action)
    # A refused action decides nothing.
    assert env.step(15)[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path_length": 0}, "Expected path_length ≥ 1, got 0"),
        ({"obs": "latent"}, "Expected obs among latents, complexity, .*; got 'latent'; did you mean 'latents'"),
        ({"obs": ()}, "Expected obs to name at least one"),
        ({"obs": ("codes", "codes")}, "Expected obs to name each kind once"),
        ({"ordering": "vidoe"}, "Expected ordering 'independent' or 'video', got 'vidoe'"),
        ({"ordering": "video"}, "Expected .*ordering='video', got .*procedural.*ordering='independent'"),
        ({"render_mode": "rgb"}, "Expected render_mode among rgb_array; got 'rgb'"),
        ({"min_tokens": 0}, "Expected min_tokens ≥ 1, got 0"),
        ({"obs": ("codes", "video")}, "got 'video'"),
        ({"split": "valid"}, "Expected split to be 'train' or 'test'"),
        ({"reward": {"weigths": {}}}, "did you mean 'weights'"),
        ({"precision": "float16"}, "Expected precision 'auto' or 'float32' or 'bfloat16'"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(tiny_world: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaildropEnv(tokenizer=tiny_world, **settings)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("tokeniser", "did you mean 'tokenizer'"),
        ("min_token", "did you mean 'min_tokens'"),
        ("group_size", "did you mean 'group_size', which TaildropVectorEnv takes"),
        ("qqq", "see TaildropEnv"),
    ],
)
def test_unknown_arguments_are_refused(tiny_world: str, argument: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"Expected arguments among tokenizer, .*; got '{argument}'; {hint}"):
        gymnasium.make(ID, **{"tokenizer": tiny_world, argument: 1})


def test_the_package_registers_itself() -> None:
    assert vaportok_rl.__version__
    assert ID in gymnasium.registry
