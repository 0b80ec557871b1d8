from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vaportok_rl.envs.scoring.engine import ScoringEngine
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.experiments.run_folder import create_run_folder
from vaportok_rl.experiments.runs.training import TrainSettings, learn, open_held_out
from vaportok_rl.experiments.runs.world_settings import RewardSettings


def settings_for(world: str, **changes: Any) -> TrainSettings:
    shape = {"path_length": 3, "scenes": 2, "group_size": 4, "held_out_scenes": 2, "decisions": 96, "pool": 9}
    return TrainSettings(**{"tokenizer": world, "seed": 5, **shape, **changes})


def test_training_decodes_no_clip_anew(tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(tiny_world)
    pool = settings.clip_pool()
    held_out = open_held_out(settings, pool=pool)
    folder = pool.table()
    assert folder is not None
    monkeypatch.setattr(ScoringEngine, "score", None)
    report = learn(settings, create_run_folder(tmp_path, "x"), held_out, pool=pool)
    engine = report.model.get_env().unwrapped.vector_env.process.engine  # type: ignore[union-attr]
    assert isinstance(engine, TableEngine)
    assert len(engine.source) == 9
    assert report.decisions == 96
    assert not Path(folder).exists()


def test_a_pool_begun_late_is_the_same(tiny_world: str, tmp_path: Path) -> None:
    settings = settings_for(tiny_world)
    weights = []
    for name in ("beside", "after"):
        pool = settings.clip_pool()
        held_out = open_held_out(settings, pool=pool if name == "beside" else None)
        policy: Any = learn(settings, create_run_folder(tmp_path, name), held_out, pool=pool).model.policy
        weights.append(torch.cat([value.flatten() for value in policy.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("changes", "clips"),
    [
        ({}, 9),
        ({"pool": 0}, 0),
        ({"pool": 24}, 0),  # as many as are drawn
        ({"pool": 2}, 0),  # fewer than a path's
        ({"reward": RewardSettings(weights={"ssim": "1"})}, 0),
        ({"reward": RewardSettings(weights={"prior_bits": "1"})}, 9),
    ],
)
def test_which_clips_are_pooled(tiny_world: str, changes: dict[str, Any], clips: int) -> None:
    assert settings_for(tiny_world, **changes).clip_pool().clips == clips


def test_what_ends_the_held_out_clips_ends_the_pool(tiny_world: str) -> None:
    settings = settings_for(tiny_world, pool=2000, decisions=10_000)
    pool = settings.clip_pool()

    def interrupt() -> None:
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        open_held_out(settings, interrupt, pool)
    assert torch.get_num_threads() == threads
