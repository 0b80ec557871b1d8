"""The scalar Gymnasium environment: observations and infos."""

from typing import Any

import numpy as np
import pytest

from vaportok_rl.envs import DEFAULT_WEIGHTS, TaildropEnv, shared_world
from vaportok_rl.envs.settings import OBSERVATIONS
from vaportok_rl.envs.walk import INFO_KEYS
from vaportok_rl.tokenizer.complexity import clip_complexity


def test_observation_shows_the_clip_to_decide_about(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3, obs=OBSERVATIONS)
    seen, _ = env.reset(seed=5)
    for _ in range(3):
        shown = seen
        seen, _, _, _, info = env.step(4)
        clip = env.process.source.batch([int(info["clip_id"])]).clips
        encoded = shared_world(tiny_world).encode(clip)
        np.testing.assert_allclose(shown["latents"], encoded.latents[0].numpy(), atol=1e-5)
        assert np.array_equal(shown["codes"], encoded.codes[0].numpy())
        assert np.array_equal(shown["clip"], clip[0].numpy())
        spatial, temporal = env.process.engine.encode(clip[None]).complexity[0, 0].tolist()
        # The tiny world's quantile tables are straight lines: 0 … 8 bits, 0 … 20 grey levels.
        assert shown["complexity"].tolist() == pytest.approx([min(spatial / 8, 1), min(temporal / 20, 1)], abs=1e-5)
    # After the last decision the last clip is shown once more.
    assert all(np.array_equal(value, seen[name]) for name, value in shown.items())


def test_info_is_about_the_clip_that_was_decided_about(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=3)
    env.reset(seed=1)
    ids = []
    for action in (0, 7, 15):
        _, reward, _, _, info = env.step(action)
        assert type(reward) is float
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


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3)], ids=lambda action: type(action).__name__)
def test_every_kind_of_integer_is_an_action(tiny_world: str, action: Any) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    assert env.step(action)[4]["n_tokens"] == 4
