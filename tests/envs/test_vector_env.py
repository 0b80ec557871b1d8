"""The vector face: groups, bitwise agreement with scalar environments, and Gymnasium's autoreset formats."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from vaportok_rl.envs import TaildropEnv, TaildropVectorEnv

ID = "vaportok/Taildrop-v0"
INFO_DTYPES = {
    "n_tokens": np.int64,
    "mse": np.float32,
    "psnr": np.float32,
    "accuracy": np.float32,
    "clip_id": np.int64,
    "label": np.int64,
    "label_name": np.object_,
    "complexity_score": np.float32,
}


def draw_actions(steps: int, num_envs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 16, (steps, num_envs))


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """All arrays in nested observations and infos, those inside object arrays too."""
    if isinstance(value, dict):
        for part in value.values():
            yield from arrays_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from arrays_in(part)
    elif isinstance(value, np.ndarray):
        yield value
        if value.dtype == object:
            yield from arrays_in(value.tolist())


def assert_nested_equal(first: Any, second: Any, where: str = "infos") -> None:
    """Equality of nested infos: keys, dtypes and values."""
    if isinstance(first, dict):
        assert isinstance(second, dict), where
        assert set(first) == set(second), where
        for name in first:
            assert_nested_equal(first[name], second[name], f"{where}[{name!r}]")
    elif isinstance(first, np.ndarray):
        assert isinstance(second, np.ndarray), where
        assert first.dtype == second.dtype, where
        assert first.shape == second.shape, where
        if first.dtype == object:
            for one, other in zip(first, second, strict=True):
                assert_nested_equal(one, other, where)
        else:
            assert np.array_equal(first, second), where
    else:
        assert first == second, where


@pytest.mark.parametrize(("num_envs", "group_size"), [(6, 3), (4, 1), (4, 4)])
def test_bitwise_the_rewards_of_scalar_environments(tiny_world: str, num_envs: int, group_size: int) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 3}
    env = TaildropVectorEnv(num_envs, group_size=group_size, **settings)
    steps = 8  # two scenes and most of a third
    actions = draw_actions(steps, num_envs)
    first, _ = env.reset(seed=40)
    vector = [env.step(row) for row in actions]
    for member in range(num_envs):
        scalar = TaildropEnv(**settings)
        obs, _ = scalar.reset(seed=40 + member // group_size)
        assert np.array_equal(obs, first[member])
        for step in range(steps):
            obs, reward, terminated, truncated, info = scalar.step(actions[step, member])
            got_obs, got_reward, got_terminated, got_truncated, got_infos = vector[step]
            assert got_reward[member] == reward
            assert (got_terminated[member], got_truncated[member]) == (terminated, truncated)
            of = got_infos["final_info"] if terminated else got_infos
            for name in INFO_DTYPES:
                assert of[name][member] == info[name]
            for name, value in info["reward_terms"].items():
                assert of["reward_terms"][name][member] == value
            if terminated:
                assert np.array_equal(got_infos["final_obs"][member], obs)
                obs, _ = scalar.reset()
            assert np.array_equal(got_obs[member], obs)


@pytest.mark.parametrize("obs", ["latents", "complexity", "codes", "clip", ("clip", "codes")], ids=str)
def test_members_of_a_group_see_the_same(tiny_world: str, obs: str | tuple[str, ...]) -> None:
    env = TaildropVectorEnv(6, group_size=3, tokenizer=tiny_world, path_length=2, obs=obs)
    seen, _ = env.reset(seed=3)
    for row in draw_actions(5, 6):
        assert env.observation_space.contains(seen)
        for value in arrays_in(seen):
            for group in (value[:3], value[3:]):
                assert (group == group[:1]).all()
            assert not np.array_equal(value[0], value[3])
        seen, _, _, _, infos = env.step(row)
        ids = infos["final_info"]["clip_id"] if "final_info" in infos else infos["clip_id"]
        assert len(set(ids[:3])) == len(set(ids[3:])) == 1


def test_same_step_format_is_that_of_gymnasiums_own_vector_environment(tiny_world: str) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 2, "obs": ("codes", "complexity")}
    ours = TaildropVectorEnv(3, **settings)
    theirs = gymnasium.make_vec(
        ID,
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **settings,
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, second = ours.reset(seed=9), theirs.reset(seed=9)
    assert_nested_equal(first[0], second[0], "obs")
    assert first[1] == second[1] == {}
    for row in draw_actions(5, 3, seed=1):
        mine, their = ours.step(row), theirs.step(row)
        for which, one, other in zip(("obs", "reward", "terminated", "truncated"), mine, their, strict=False):
            assert_nested_equal(one, other, which)
        assert_nested_equal(mine[4], their[4])
    theirs.close()


def test_infos_have_fixed_types_and_masks(tiny_world: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    env.reset(seed=0)
    _, rewards, terminated, truncated, infos = env.step(np.array([0, 5, 9, 15]))
    assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
    assert {name: infos[name].dtype for name in INFO_DTYPES} == INFO_DTYPES
    assert infos["n_tokens"].tolist() == [1, 6, 10, 16]
    assert all(infos[f"_{name}"].all() for name in (*INFO_DTYPES, "reward_terms"))
    assert {value.dtype for name, value in infos["reward_terms"].items() if name[0] != "_"} == {np.dtype(np.float32)}
    assert "final_info" not in infos
    _, _, terminated, _, infos = env.step(np.array([0, 5, 9, 15]))
    assert terminated.all()
    assert set(infos) == {"final_info", "_final_info", "final_obs", "_final_obs"}
    assert infos["_final_info"].all()
    assert infos["_final_obs"].all()
    assert infos["final_obs"].dtype == object


def test_a_partial_reset_mixes_finished_and_running_groups(tiny_world: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=3)
    env.reset(seed=0)
    env.step(np.zeros(4, dtype=np.int64))
    env.reset(options={"reset_mask": np.array([False, False, True, True])})
    _, _, terminated, _, infos = env.step(np.full(4, 3))
    assert not terminated.any()
    _, _, terminated, _, infos = env.step(np.full(4, 3))
    assert terminated.tolist() == [True, True, False, False]
    assert infos["_final_info"].tolist() == [True, True, False, False]
    assert infos["_mse"].tolist() == [False, False, True, True]
    assert infos["mse"][:2].tolist() == [0.0, 0.0]
    assert (infos["mse"][2:] > 0).all()
    assert infos["final_info"]["_mse"].tolist() == [True, True, False, False]
    assert [value is None for value in infos["final_obs"]] == [False, False, True, True]
    # The group that began later pays no diversity for lengths of the scene it left: all its lengths were 4.
    _, _, terminated, _, infos = env.step(np.full(4, 3))
    assert terminated.tolist() == [False, False, True, True]
    assert infos["final_info"]["reward_terms"]["diversity"][2:].tolist() == [0.0, 0.0]


def test_disabled_autoreset(tiny_world: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, autoreset_mode=AutoresetMode.DISABLED, tokenizer=tiny_world, path_length=2)
    assert env.autoreset_mode is env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset(seed=[5, 5, 6, 6])
    scalar = TaildropEnv(tokenizer=tiny_world, path_length=2)
    scalar.reset(seed=6)
    for action in (2, 11):
        last, rewards, terminated, _, infos = env.step(np.full(4, action))
        _, reward, _, _, info = scalar.step(action)
        assert rewards[3] == reward
        assert infos["clip_id"][3] == info["clip_id"]
    assert terminated.all()
    assert "final_obs" not in infos
    with pytest.raises(RuntimeError, match=r"Expected reset\(\) after the last of 2 clips"):
        env.step(np.zeros(4, dtype=np.int64))
    options = {"reset_mask": np.array([False, False, True, True])}
    obs, _ = env.reset(options=options)
    # The caller's dictionary is left alone, and so are the groups outside the mask.
    assert list(options) == ["reset_mask"]
    assert np.array_equal(obs[:2], last[:2])
    assert np.array_equal(obs[3], scalar.reset()[0])
    with pytest.raises(RuntimeError, match=r"Expected reset\(\)"):
        env.step(np.zeros(4, dtype=np.int64))
    env.reset(options={"reset_mask": np.array([True, True, False, False])})
    env.step(np.zeros(4, dtype=np.int64))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([True, False, True, True]), "cover whole groups of 2"),
        (np.array([False] * 4), "at least one"),
        (np.array([True, True]), r"bool array of shape \(4,\)"),
        (np.array([1, 1, 0, 0]), r"bool array of shape \(4,\)"),
        ([True, True, False, False], r"bool array of shape \(4,\)"),
    ],
    ids=["cuts a group", "empty", "short", "integers", "list"],
)
def test_bad_reset_masks_are_refused(tiny_world: str, mask: Any, message: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options={"reset_mask": mask})


def test_a_seed_beside_a_mask_seeds_the_groups_in_it(tiny_world: str) -> None:
    shown = []
    for seed in (None, 9):
        env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2, autoreset_mode="Disabled")
        env.reset(seed=2)
        env.reset(seed=seed, options={"reset_mask": np.array([True, True, False, False])})
        shown.append(env.reset()[0])
    assert np.array_equal(shown[0][2:], shown[1][2:])
    assert not np.array_equal(shown[0][:2], shown[1][:2])


def test_reset_mask_before_the_first_reset(tiny_world: str) -> None:
    env = TaildropVectorEnv(2, tokenizer=tiny_world, path_length=2)
    with pytest.raises(RuntimeError, match=r"Expected reset\(\)"):
        env.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_envs": 2, "group_size": 0}, "group_size=0"),
        ({"num_envs": 2, "autoreset_mode": AutoresetMode.NEXT_STEP}, "got NEXT_STEP"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(tiny_world: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaildropVectorEnv(tokenizer=tiny_world, **settings)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        ([1, 2, 3, 3], ValueError, "one seed for all members of a group"),
        ([1, 1], ValueError, "Expected 4 seeds"),
        (np.int64(3), TypeError, r"pass int\(seed\)"),
        (1.5, TypeError, r"pass int\(seed\)"),
    ],
    ids=str,
)
def test_bad_seeds_are_refused(tiny_world: str, seed: Any, error: type[Exception], message: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    with pytest.raises(error, match=message):
        env.reset(seed=seed)


def test_none_in_a_list_of_seeds_keeps_that_groups_stream(tiny_world: str) -> None:
    env, other = (TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=1) for _ in range(2))
    env.reset(seed=0)
    other.reset(seed=0)
    obs, _ = env.reset(seed=[None, None, 1, 1])
    plain, _ = other.reset()
    again, _ = other.reset(seed=0)
    assert np.array_equal(obs[:2], plain[:2])
    assert np.array_equal(obs[2:], again[2:])


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (np.zeros(4), TypeError, "Expected integer actions"),
        (np.zeros(3, dtype=np.int64), ValueError, r"Expected actions of shape \(4,\), got \(3,\)"),
        (np.array([0, 1, 16, 2]), ValueError, "Expected actions in 0…15, got 0…16"),
        (np.array([0, -1, 3, 2]), ValueError, "Expected actions in 0…15, got -1…3"),
    ],
    ids=["floats", "too few", "past K", "negative"],
)
def test_bad_actions_are_refused(tiny_world: str, actions: np.ndarray, error: type[Exception], message: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.step(actions)


@pytest.mark.parametrize("obs", ["latents", ("clip", "complexity")], ids=str)
def test_returned_arrays_are_never_shared(tiny_world: str, obs: str | tuple[str, ...]) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2, obs=obs)
    returned: list[Any] = [env.reset(seed=0)]
    returned += [env.step(row) for row in draw_actions(4, 4)]
    arrays = [list(arrays_in(one)) for one in returned]
    for i, now in enumerate(arrays):
        for earlier in arrays[:i]:
            assert not any(np.shares_memory(a, b) for a in now for b in earlier if a.dtype != object != b.dtype)
    final = returned[2][4]["final_obs"]
    assert not any(np.shares_memory(a, b) for a in arrays_in(final[0]) for b in arrays_in(final[1]))


def test_make_vec_uses_the_vector_entry_point(tiny_world: str) -> None:
    env = gymnasium.make_vec(
        ID,
        num_envs=4,
        vectorization_mode="vector_entry_point",
        group_size=2,
        tokenizer=tiny_world,
        path_length=2,
    )
    assert isinstance(env.unwrapped, TaildropVectorEnv)
    assert (env.unwrapped.groups, env.unwrapped.group_size) == (2, 2)
    direct = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    env.reset(seed=1)
    direct.reset(seed=1)
    for row in draw_actions(3, 4):
        assert np.array_equal(env.step(row)[1], direct.step(row)[1])


def test_record_episode_statistics(tiny_world: str) -> None:
    env = RecordEpisodeStatistics(TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2))
    env.reset(seed=0)
    returns = np.zeros(4)
    for row in draw_actions(4, 4):
        _, rewards, terminated, _, infos = env.step(row)
        returns += rewards
        if terminated.any():
            assert infos["episode"]["r"] == pytest.approx(returns)
            assert infos["episode"]["l"].tolist() == [2] * 4
            returns[:] = 0
    assert env.episode_count == 8


def test_same_seed_same_bits(tiny_world: str) -> None:
    traces = []
    for _ in range(2):
        env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=3)
        traces.append([env.reset(seed=17), *(env.step(row) for row in draw_actions(7, 4))])
    for one, other in zip(*traces, strict=True):
        for first, second in zip(one, other, strict=True):
            assert_nested_equal(first, second)
