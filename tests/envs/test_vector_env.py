"""The vector environment: groups, bitwise equality with scalar ones, Gymnasium's autoreset formats, level memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vaportok_rl.envs import TaildropEnv, TaildropVectorEnv
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.registration import TAILDROP_ID


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


@pytest.mark.parametrize(("num_envs", "group_size"), [(6, 3), (3, 1), (4, 4)])
def test_bitwise_what_gymnasium_makes_of_scalar_environments(tiny_world: str, num_envs: int, group_size: int) -> None:
    settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 3, "obs": ("codes", "complexity", "latents")}
    ours = TaildropVectorEnv(num_envs, group_size=group_size, **settings)
    vector = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theirs = gymnasium.make_vec(TAILDROP_ID, num_envs, "sync", vector_kwargs=vector, **settings)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, second = ours.reset(seed=9), theirs.reset(seed=[9 + env // group_size for env in range(num_envs)])
    assert_nested_equal(first[0], second[0], "obs")
    assert first[1] == second[1] == {}
    for row in np.random.default_rng(1).integers(0, 16, (8, num_envs)):  # two scenes and most of a third
        mine, their = ours.step(row), theirs.step(row)
        for which, one, other in zip(("obs", "reward", "terminated", "truncated", "infos"), mine, their, strict=True):
            assert_nested_equal(one, other, which)
    theirs.close()


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
    ("seed", "message"), [([1, 2, 3, 3], "one seed for all members of a group"), ([1, 1], "Expected 4 seeds")]
)
def test_bad_lists_of_seeds_are_refused(tiny_world: str, seed: list[int], message: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=2)
    with pytest.raises(ValueError, match=message):
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


# A long rollout in a process of its own.
_PROGRAM = """if True:
    import json, sys, threading
    from pathlib import Path
    import gymnasium, numpy as np, vaportok_rl

    def used():
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return [int(status["VmRSS"].split()[0]) // 1024, len(list(Path("/proc/self/fd").iterdir())),
                int(status["Threads"])]

    decisions, copies, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    envs = gymnasium.make_vec("vaportok/Taildrop-v0", copies, vectorization_mode="vector_entry_point", **options)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    found = []
    for step in range(decisions // copies):
        envs.step(envs.action_space.sample())
        if (step + 1) % (decisions // copies // 4) == 0:
            found.append(used())
    print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("decisions", "copies", "world"), [(100_000, 50, "table"), (3_000, 4, "nano")])
def test_nothing_grows(decisions: int, copies: int, world: str, tmp_path: Path) -> None:
    options = {"tokenizer": "nano"}
    if world == "table":
        TableBuilder(plan_table(tokenizer="nano", count=32, held_out=0, grid=32), tmp_path / "table").run()
        options = {"table": str(tmp_path / "table")}
    command = [sys.executable, "-c", _PROGRAM, str(decisions), str(copies), json.dumps(options)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{world}, at each quarter: MiB, file handles, threads: {found}")
    # The first quarter fills caches of a fixed size.
    (memory, handles, threads), (later, *rest) = found[1], found[-1]
    assert later < memory + 32
    assert rest == [handles, threads]
