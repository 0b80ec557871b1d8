"""The tiny world, opened, and clips for two paths of three through it."""

import pytest
import torch
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import shared_world
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
