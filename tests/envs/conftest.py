"""The tiny world, opened, and clips for two paths of three through it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import shared_world
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.tokenizer import VaporTok


@pytest.fixture(scope="session")
def world(tiny_world: str) -> VaporTok:
    return shared_world(tiny_world)


@pytest.fixture(scope="session")
def clips(world: VaporTok) -> Tensor:
    """``uint8 [2, 3, C, T, H, W]``."""
    config = world.config
    batch = ProceduralClips(3, "train", frames=config.frames, size=config.size).batch(range(6))
    return torch.unflatten(batch.clips, 0, (2, 3))


@pytest.fixture(scope="session")
def full_table(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outcome table of the tiny world with every length, the prior's bits and both splits, in three shards."""
    build = plan_table(tokenizer=tiny_world, count=12, held_out=7, grid="all", bits=True, shard_clips=8)
    return TableBuilder(build, tmp_path_factory.mktemp("tables") / "full").run().folder


@pytest.fixture(scope="session")
def coarse_table(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips at every fourth length."""
    build = plan_table(tokenizer=tiny_world, count=12, held_out=7, grid=4, shard_clips=8)
    return TableBuilder(build, tmp_path_factory.mktemp("tables") / "coarse").run().folder
