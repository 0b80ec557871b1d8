"""On a table all environment classes equal those on the network, without the network."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env

from vaportok_rl.agents import GRPO, HeldOut, build_length_policy
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import (
    MOTaildropEnv,
    MOTaildropVectorEnv,
    TaildropEnv,
    TaildropProcess,
    TaildropVecEnv,
    TaildropVectorEnv,
    check_vector_env,
    process,
)
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.registration import TAILDROP_ID

COUNTS = {"train": 12, "test": 7}
REWARD = {"weights": {"efficiency": 0.7, "diversity": 1.3, "prior_bits": 0.2, "log_mse": 0.1, "codebook_usage": 0.4}}


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Procedural worlds that end where the tables do."""

    def open_some(clips: str, *, split: str, frames: int, size: int, seed: int) -> ProceduralClips:
        return ProceduralClips(seed, split, frames=frames, size=size, length=COUNTS[split])

    monkeypatch.setattr(process, "open_clips", open_some)


def assert_alike(one: Any, other: Any) -> None:
    """Equal to the rounding of a mean squared error, and of half-precision latents."""
    assert type(one) is type(other)
    if isinstance(one, tuple):
        for mine, theirs in zip(one, other, strict=True):
            assert_alike(mine, theirs)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, np.ndarray) and one.dtype == object:
        for mine, theirs in zip(one, other, strict=True):
            assert_alike(mine, theirs)
    elif isinstance(one, str):
        assert one == other
    elif one is not None:
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype.kind in "US":
            assert (one == other).all()
            return
        tolerance = 2e-3 if one.ndim >= 2 and one.dtype == np.float32 else 2e-5
        assert np.allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("covered")
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", [TaildropEnv, MOTaildropEnv])
def test_the_scalar_faces(tiny_world: str, full_table: Path, split: str, kind: Any) -> None:
    settings = {"path_length": 3, "reward": REWARD, "obs": ("latents", "codes", "complexity"), "split": split}
    network, table = kind(tokenizer=tiny_world, **settings), kind(table=str(full_table), **settings)
    assert table.observation_space == network.observation_space
    assert table.action_space == network.action_space
    for seed in range(3):
        assert_alike(table.reset(seed=seed), network.reset(seed=seed))
        for action in (0, 15, 6):
            assert_alike(table.step(action), network.step(action))


@pytest.mark.usefixtures("covered")
@pytest.mark.parametrize("kind", [TaildropVectorEnv, MOTaildropVectorEnv])
@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_the_vector_faces(tiny_world: str, full_table: Path, kind: Any, mode: str) -> None:
    settings = {
        "group_size": 2,
        "path_length": 3,
        "reward": REWARD,
        "obs": "complexity",
        "token_budget": 20,
        "autoreset_mode": mode,
    }
    network, table = kind(6, tokenizer=tiny_world, **settings), kind(6, table=str(full_table), **settings)
    assert_alike(table.reset(seed=4), network.reset(seed=4))
    mask = np.repeat([True, False, True], 2)
    for step, actions in enumerate(np.random.default_rng(0).integers(0, 16, (6, 6))):
        if mode == "Disabled" and step in (2, 3, 5):
            which = {2: mask, 3: ~mask, 5: mask}[step]
            assert_alike(table.reset(options={"reset_mask": which}), network.reset(options={"reset_mask": which}))
        assert_alike(table.action_masks(), network.action_masks())
        assert_alike(table.step(actions), network.step(actions))


@pytest.mark.usefixtures("covered")
def test_between_grid_points_it_is_off_by_the_interpolation(tiny_world: str, coarse_table: Path) -> None:
    network = TaildropEnv(tokenizer=tiny_world, path_length=5)
    table = TaildropEnv(table=str(coarse_table), path_length=5)
    network.reset(seed=0)
    table.reset(seed=0)
    for action in (0, 7, 15, 4, 9):
        expected, got = network.step(action)[-1], table.step(action)[-1]
        near = 1e-5 if action + 1 in (1, 8, 16) else 0.2
        assert got["mse"] == pytest.approx(expected["mse"], rel=near)
        assert got["accuracy"] == expected["accuracy"]
        assert got["clip_id"] == expected["clip_id"]


@pytest.mark.usefixtures("covered")
def test_held_out_scores_oracle_and_policies(tiny_world: str, full_table: Path) -> None:
    settings = {"path_length": 3, "split": "test", "reward": {"weights": {"diversity": 0.5}}}
    network = TaildropProcess(tokenizer=tiny_world, **settings)
    table = TaildropProcess(table=str(full_table), **settings)
    one, other = HeldOut(network, 2), HeldOut(table, 2)
    torch.testing.assert_close(other.every.mse, one.every.mse, rtol=1e-5, atol=0)
    assert torch.equal(other.every.accuracy, one.every.accuracy)
    assert torch.equal(other.scene.ids, one.scene.ids)
    assert torch.equal(other.score, one.score)
    for spec in ("fixed:5", "complexity", "oracle", "threshold:0.2", "threshold:0.2:binary", "argmax"):
        lengths = [
            build_length_policy(spec, world)(held.scene, torch.Generator()).n_tokens
            for world, held in ((network, one), (table, other))
        ]
        assert torch.equal(*lengths), spec


def test_grpo_learns_on_a_table(full_table: Path) -> None:
    env = TaildropVecEnv(32, group_size=8, table=str(full_table), path_length=3)
    agent = GRPO("TaildropPolicy", env, seed=0)
    before = [value.clone() for value in agent.policy.parameters()]
    agent.learn(2 * 32 * 3)
    assert any(not torch.equal(one, other) for one, other in zip(before, agent.policy.parameters(), strict=True))
    other = GRPO("TaildropPolicy", TaildropEnv(table=str(full_table), path_length=3), group_size=4, scenes=2)
    assert other.vector_env.settings["table"] == str(full_table)


@pytest.mark.parametrize("obs", ["latents", "complexity", "codes", ("codes", "complexity")])
@pytest.mark.filterwarnings("ignore:.*Box observation space.*")
def test_the_checkers_are_content(full_table: Path, obs: Any) -> None:
    env = gymnasium.make(TAILDROP_ID, table=str(full_table), path_length=2, obs=obs)
    check_env(env.unwrapped)
    if obs == "complexity":
        check_sb3_env(env.unwrapped)
    check_vector_env(TaildropVectorEnv(4, group_size=2, table=str(full_table), path_length=2, obs=obs), steps=5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_and_pickles_share_the_table(full_table: Path, duplicate: Any) -> None:
    env = TaildropVectorEnv(4, group_size=2, table=str(full_table), path_length=2)
    env.reset(seed=3)
    env.step(np.arange(4))
    twin = duplicate(env)
    assert twin.process.engine.table is env.process.engine.table
    assert len(pickle.dumps(env)) < 100_000
    for row in np.random.default_rng(0).integers(0, 16, (3, 4)):
        for one, other in zip(env.step(row)[:4], twin.step(row)[:4], strict=True):
            assert np.array_equal(one, other)


def test_no_network_is_loaded(full_table: Path) -> None:
    program = f"""
import sys
from vaportok_rl.envs import TaildropVectorEnv
from vaportok_rl.envs.scoring import worlds
from vaportok_rl.tokenizer import VaporTok
VaporTok.from_pretrained = None
env = TaildropVectorEnv(4, table={str(full_table)!r}, path_length=2)
env.reset(seed=0)
env.step([0, 1, 2, 3])
assert not worlds._WORLDS
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_settings_come_from_the_table(tiny_world: str, full_table: Path) -> None:
    table = str(full_table)
    settings = TaildropProcess(table=table, path_length=2).settings
    assert (settings.tokenizer, settings.clips, settings.clip_seed) == (tiny_world, "procedural", 0)
    TaildropProcess(table=table, path_length=2, tokenizer=tiny_world, clips=["procedural"], precision="float32")
    for argument, value, named in (
        ("tokenizer", "nano", "Expected the tokenizer that the outcome table .* got 'nano'"),
        ("clips", "gym:CartPole-v1", "Expected clips=procedural, .* got gym:CartPole-v1"),
        ("clip_seed", 3, "Expected clip_seed=0, .* got 3"),
        ("precision", "bfloat16", "Expected precision='float32', .* got 'bfloat16'"),
        ("split", "validation", r"Expected a split of the outcome table .*\(.*train.*\), got 'validation'"),
        ("obs", "clip", "got 'clip'"),
        ("obs", ("latents", "clip"), "got 'clip'"),
        ("path_length", 13, "Expected path_length ≤ 12"),
        ("ordering", "video", "Expected clips of long videos"),
    ):
        with pytest.raises(ValueError, match=named):
            TaildropProcess(**({"table": table, "path_length": 2} | {argument: value}))  # type: ignore[arg-type]


def test_what_a_smaller_table_cannot_serve(tiny_world: str, coarse_table: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="terms that also need bits; build it with `--bits`"):
        TaildropProcess(table=str(coarse_table), reward={"weights": {"prior_bits": 0.1}})
    with pytest.raises(ValueError, match="terms that also need lpips; leave table out"):
        TaildropProcess(table=str(coarse_table), reward={"weights": {"lpips": 0.1}})
    build = plan_table(tokenizer=tiny_world, count=2, held_out=0, latents="none")
    small = str(TableBuilder(build, tmp_path / "small").run().folder)
    with pytest.raises(ValueError, match="without latents, got 'latents'"):
        TaildropProcess(table=small, path_length=2)
    process = TaildropProcess(table=small, path_length=2, obs="codes")
    assert process.settings.table == small
    scene = process.engine.scene(torch.tensor([[0, 1]]))
    assert "rows=tensor([[0, 1]])" in repr(scene)  # shown without reading a field, which the table may lack
    with pytest.raises(ValueError, match="--latents full"):
        scene.latents  # noqa: B018


def test_a_table_of_weights_that_changed(tiny_world: str, full_table: Path, tmp_path: Path) -> None:
    from vaportok_rl.envs import shared_world

    moved = shared_world(tiny_world).save_pretrained(tmp_path / "moved")
    build = plan_table(tokenizer=str(moved), count=2, held_out=0)
    table = TableBuilder(build, tmp_path / "table").run()
    # The same weights under another name are the same tokenizer.
    assert TaildropProcess(table=str(table.folder), path_length=2, tokenizer=tiny_world).tokenizer == tiny_world
    config = moved / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ValueError, match=r"Expected the tokenizer that the outcome table .* was built with"):
        TaildropProcess(table=str(table.folder), path_length=2)
    with pytest.raises(ValueError, match="hold a table of the same build, got one with weights"):
        TableBuilder(plan_table(tokenizer=str(moved), count=2, held_out=0), tmp_path / "table").run()
    # Where the tokenizer is gone, the table alone still serves.
    moved.rename(tmp_path / "gone")
    env = TaildropEnv(table=str(table.folder), path_length=2)
    env.reset(seed=0)
    env.step(3)
    with pytest.raises(FileNotFoundError, match="Expected a shipped checkpoint"):
        env.process.engine.world.taildrop(torch.zeros(1, 16, 32))


def test_pictures_are_the_networks(tiny_world: str, full_table: Path) -> None:
    settings: dict[str, Any] = {"path_length": 2, "render_mode": "rgb_array", "split": "test", "obs": "complexity"}
    env = TaildropEnv(table=str(full_table), **settings)
    env.reset(seed=0)
    env.step(4)
    other = TaildropEnv(tokenizer=tiny_world, **settings)
    drawn = env._walk.scene.indices.numpy()
    other.process.draw = lambda generators: drawn
    other.reset(seed=0)
    other.step(4)
    assert np.array_equal(env.render(), other.render())


def test_many_environments_draw_the_scenes_of_few(full_table: Path) -> None:
    """Scenes are opened together on a table; which ones does not depend on that."""
    many = TaildropVectorEnv(24, group_size=4, table=str(full_table), path_length=4, obs="codes")
    seen, _ = many.reset(seed=50)
    table = OutcomeTable.load(full_table)["train"]
    for group in range(6):
        alone = TaildropEnv(table=str(full_table), path_length=4, obs="codes")
        assert np.array_equal(alone.reset(seed=50 + group)[0], seen[4 * group])
        first = int(alone.step(0)[-1]["clip_id"])
        assert np.array_equal(seen[4 * group], table.codes[first].long())
