from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import vaportok_rl  # noqa: F401  (registers the environments)
from vaportok_rl.agents import build_length_policy
from vaportok_rl.clips import ClipOrigin
from vaportok_rl.envs import Scene, TaildropEnv, TaildropProcess, TaildropVecEnv, make_sb3_env
from vaportok_rl.experiments.reports.evaluation import evaluate
from vaportok_rl.experiments.rollouts.playing import ROWS_FILE, SUMMARY_FILE, rollout
from vaportok_rl.tokenizer import clip_complexity

# The tiny world's errors are large; at scale 1 a path reward is of order one, as it is on a trained world.
_REWARD = {"scale": 1.0}


def _process(world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=world, path_length=3, reward=_REWARD)


def test_one_row_a_decision_in_order(tiny_world: str) -> None:
    process = _process(tiny_world)
    rows = rollout(process, build_length_policy("fixed:5", process), episodes=4, seed=1).to_pandas()
    assert len(rows) == 12
    assert rows["scene"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert rows["step"].tolist() == [0, 1, 2] * 4
    assert (rows["n_tokens"] == 5).all()
    shown = rollout(process, "fixed:5", episodes=1)._repr_html_()
    assert ">n_tokens</td>" in shown
    assert ">5</td>" in shown
    assert "1 of 1 scenes, 1 paths, 3 decisions" in shown
    assert "| n_tokens | 5 |" in repr(rollout(process, "fixed:5", episodes=1))
    assert set(rows["label"]) <= set(process.source.label_names)


@pytest.mark.parametrize("limits", [{}, {"min_tokens": 3, "max_tokens": 9, "token_budget": 20}])
def test_rows_are_bitwise_what_the_gymnasium_environment_returns(tiny_world: str, limits: dict[str, int]) -> None:
    def brightness(decoded: Tensor, clip: Tensor) -> Tensor:
        return -(decoded - clip).flatten(1).mean(1).abs()

    paid = {**_REWARD, "pixel_terms": [brightness]}
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tiny_world, path_length=3, reward=paid, **limits)
    done = rollout(env, "random", episodes=3, seed=7, paths=2)
    assert len(done.path_rewards) == 6
    for ((episode, _), rows), path_reward in zip(done.rows.groupby(["scene", "path"]), done.path_rewards, strict=True):
        env.reset(seed=7 + int(episode))
        total = 0.0
        for row in rows.itertuples():
            _, reward, terminated, _, info = env.step(int(row.n_chosen) - 1)
            total += float(reward)
            assert reward == row.reward
            for name in ("clip_id", "n_tokens", "mse", "psnr", "accuracy"):
                assert info[name] == getattr(row, name)
            assert env.unwrapped.process.source.label_names[info["label"]] == row.label
            assert info["reward_terms"]["brightness"] == row.brightness
            for name, value in info["reward_terms"].items():
                # A path term is 0 until the last step; rows repeat it along the path.
                if name != "diversity" or terminated:
                    assert value == getattr(row, f"reward_{name}")
        assert terminated
        assert total == pytest.approx(path_reward, abs=1e-6)


def test_complexity_is_that_of_the_clips(tiny_world: str) -> None:
    process = _process(tiny_world)
    rows = rollout(process, "random", episodes=2, seed=3).rows
    for row in rows.itertuples():
        spatial, temporal = clip_complexity(process.source[row.clip_id][None])[0].tolist()
        assert (row.spatial_complexity, row.temporal_complexity) == pytest.approx((spatial, temporal), rel=1e-6)


def test_clips_of_files_say_where_they_come_from(tiny_world: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    for name, frames in (("a", 40), ("b", 12)):
        imageio.imwrite(tmp_path / f"{name}.mp4", pixels[:frames], plugin="FFMPEG", fps=8)
    mixture = (str(tmp_path), str(tmp_path / "a.mp4"))
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tiny_world, path_length=3, clips=mixture)
    source = env.unwrapped.process.source
    env.reset(seed=4)
    for row in rollout(env, "fixed:5", episodes=1, seed=4).rows.itertuples():
        *_, info = env.step(4)
        origin = source.origin(row.clip_id)
        assert origin == ClipOrigin(row.file, row.start_frame, row.label)
        assert origin == ClipOrigin(info["file"], info["start_frame"], info["label_name"])
        assert Path(row.file).parent == tmp_path.resolve()
        assert row.complexity_score == info["complexity_score"]
    held_out = TaildropProcess(tokenizer=tiny_world, path_length=3, clips=mixture, split="test")
    judged = evaluate(held_out, {}, scenes=50)
    clips = judged.results()["held_out_clips"]
    distinct = set(zip(clips["file"], clips["start_frame"], strict=True))
    assert judged.held_out.repeated == len(clips["id"]) - len(distinct)
    assert judged.held_out.repeated > 0
    assert f"({judged.held_out.repeated} of them repeated" in judged.title()


def test_a_range_and_a_budget_change_what_is_kept(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, min_tokens=2, token_budget=20)
    rows = rollout(process, "fixed:12", episodes=2).rows
    assert rows["n_chosen"].tolist() == [12] * 6
    assert rows["n_tokens"].tolist() == [12, 6, 2] * 2


def test_whatever_is_around_the_process(tiny_world: str) -> None:
    settings = {"tokenizer": tiny_world, "path_length": 3, "reward": _REWARD}
    expected = rollout(_process(tiny_world), "argmax", episodes=2, seed=4).rows
    environments: list[Any] = [
        TaildropEnv(**settings),
        gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("vaportok/Taildrop-v0", **settings)),
        gymnasium.make("vaportok/MO-Taildrop-v0", **settings),
        gymnasium.make_vec("vaportok/Taildrop-v0", 2, vectorization_mode="vector_entry_point", **settings),
        make_sb3_env(2, **settings),
    ]
    for env in environments:
        pd.testing.assert_frame_equal(rollout(env, "argmax", episodes=2, seed=4).rows, expected)


def test_a_group_walks_each_scene_together(tiny_world: str) -> None:
    env = TaildropVecEnv(8, group_size=4, tokenizer=tiny_world, path_length=3)
    rows = rollout(env, "random", episodes=2).rows
    assert rows["scene"].tolist() == [0] * 12 + [1] * 12
    assert rows["path"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] * 2
    clips = rows["clip_id"].to_numpy().reshape(2, 4, 3)
    assert (clips == clips[:, :1]).all()
    assert len(set(rows["n_tokens"])) > 3
    assert (rollout(env, "random", episodes=2, paths=1).rows["path"] == 0).all()


def test_a_function_is_a_policy(tiny_world: str) -> None:
    def by_label(scene: Scene, generator: torch.Generator) -> torch.Tensor:
        return scene.labels % 16 + 1

    process = _process(tiny_world)
    rows = rollout(process, by_label, episodes=4).rows
    names = process.source.label_names
    assert rows["n_tokens"].tolist() == [names.index(label) % 16 + 1 for label in rows["label"]]
    assert rows["log_prob"].isna().all()
    with pytest.raises(ValueError, match=r"Expected policy 'too_long' to return lengths in 1…16, got 17"):
        rollout(process, too_long, episodes=1)


def too_long(scene: Scene, generator: torch.Generator) -> torch.Tensor:
    return torch.full(scene.shape, 17)


def _until(calls: int) -> Callable[[Scene, torch.Generator], torch.Tensor]:
    """A policy during whose call Ctrl-C is pressed."""
    left = [calls]

    def policy(scene: Scene, generator: torch.Generator) -> torch.Tensor:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return torch.full(scene.shape, 5)

    return policy


def test_an_interrupted_rollout_is_not_taken_for_a_whole_one(tiny_world: str) -> None:
    process = _process(tiny_world)
    with pytest.raises(KeyboardInterrupt):
        rollout(process, _until(2), episodes=4)
    with pytest.raises(KeyboardInterrupt):
        rollout(process, _until(0), episodes=4, keep_partial=True)
    partial = rollout(process, _until(2), episodes=4, keep_partial=True)
    assert not partial.complete
    assert {key: partial.summary()[key] for key in ("complete", "episodes", "episodes_asked", "decisions")} == {
        "complete": False,
        "episodes": 2,
        "episodes_asked": 4,
        "decisions": 6,
    }
    whole = rollout(process, "fixed:5", episodes=2)
    assert whole.complete
    pd.testing.assert_frame_equal(partial.rows, whole.rows)
    assert partial.path_rewards == whole.path_rewards


@pytest.mark.parametrize("spec", ["fixed:16", "random", "argmax", "complexity", "oracle"])
def test_the_same_seed_gives_the_same_bytes(tiny_world: str, tmp_path: Path, spec: str) -> None:
    written = []
    for name in ("first", "second"):
        process = _process(tiny_world)
        folder = tmp_path / name
        folder.mkdir()
        rollout(process, build_length_policy(spec, process), episodes=3, seed=5).write(folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {ROWS_FILE, SUMMARY_FILE}


def test_another_seed_gives_other_clips(tiny_world: str) -> None:
    process = _process(tiny_world)
    policy = build_length_policy("random", process)
    first, second = (rollout(process, policy, episodes=2, seed=seed).rows for seed in (1, 100))
    assert first["clip_id"].tolist() != second["clip_id"].tolist()


def test_the_summary_is_the_mean_of_the_rows(tiny_world: str, tmp_path: Path) -> None:
    process = _process(tiny_world)
    done = rollout(process, build_length_policy("random", process), episodes=5, seed=0)
    summary = done.summary()
    assert summary["decisions"] == 15
    assert summary["mean"]["mse"] == pytest.approx(done.rows["mse"].mean())
    assert summary["reward"] == pytest.approx(torch.tensor(done.path_rewards).mean().item(), abs=1e-6)
    path, _ = done.write(tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), done.rows)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"episodes": 0}, ValueError, "Expected episodes ≥ 1, got 0"),
        ({"paths": 0}, ValueError, "Expected paths ≥ 1, got 0"),
        ({"seed": -1}, ValueError, "Expected seed ≥ 0"),
        ({"seed": np.int64(1)}, TypeError, "Expected seed to be a Python int"),
        ({"policy": "randon"}, ValueError, r"did you mean 'random'\?"),
        ({"env": gymnasium.make("CartPole-v1")}, ValueError, "Expected a Taildrop environment .* got CartPoleEnv"),
    ],
)
def test_bad_input_is_refused(tiny_world: str, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rollout(**{"env": _process(tiny_world), "policy": "random", "episodes": 1, **arguments})
