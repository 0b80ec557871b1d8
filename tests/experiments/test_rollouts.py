from __future__ import annotations

from pathlib import Path

import gymnasium
import pandas as pd
import pytest
import torch

import vaportok_rl  # noqa: F401  (registers the environments)
from vaportok_rl.agents import build_length_policy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.rollouts import ROWS_FILE, SUMMARY_FILE, rollout

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
    assert set(rows["label"]) <= set(process.source.label_names)


def test_rows_are_what_the_gymnasium_environment_returns(tiny_world: str) -> None:
    process = _process(tiny_world)
    done = rollout(process, build_length_policy("random", process), episodes=3, seed=7)
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tiny_world, path_length=3, reward=_REWARD)
    for episode, rows in done.rows.groupby("scene"):
        env.reset(seed=7 + int(str(episode)))
        total = 0.0
        for row in rows.itertuples():
            _, reward, terminated, _, info = env.step(int(row.n_tokens) - 1)
            total += float(reward)
            assert info["clip_id"] == row.clip_id
            assert float(info["mse"]) == pytest.approx(row.mse, rel=1e-6)
            assert float(info["accuracy"]) == pytest.approx(row.accuracy, abs=1e-7)
            assert float(info["reward_terms"]["reconstruction"]) == pytest.approx(row.reward_reconstruction, rel=1e-6)
        assert terminated
        assert total == pytest.approx(done.path_rewards[int(str(episode))], abs=1e-6)


@pytest.mark.parametrize("spec", ["fixed:16", "random", "argmax", "oracle"])
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


def test_no_episodes_is_an_error(tiny_world: str) -> None:
    process = _process(tiny_world)
    with pytest.raises(ValueError, match="Expected episodes ≥ 1"):
        rollout(process, build_length_policy("random", process), episodes=0)
