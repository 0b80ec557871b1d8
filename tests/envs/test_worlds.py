"""One world a checkpoint, device and precision."""

import os
from pathlib import Path

import pytest

from vaportok_rl.envs import TaildropEnv, TaildropVectorEnv, shared_world


def test_the_same_object_twice(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = shared_world(tiny_world)
    assert shared_world(tiny_world) is world
    # However the folder is written.
    assert shared_world(tiny_world + os.sep) is world
    monkeypatch.chdir(Path(tiny_world).parent)
    assert shared_world(Path(tiny_world).name) is world


def test_every_environment_shares_it(tiny_world: str) -> None:
    envs = [TaildropEnv(tokenizer=tiny_world), TaildropVectorEnv(2, tokenizer=tiny_world)]
    assert all(env.process.engine.world is shared_world(tiny_world) for env in envs)


def test_another_precision_is_another_world(tiny_world: str) -> None:
    world = shared_world(tiny_world, precision="bfloat16")
    assert world is not shared_world(tiny_world)
    assert world.precision == "bfloat16"


def test_it_is_frozen(tiny_world: str) -> None:
    world = shared_world(tiny_world)
    assert not world.training
    assert not any(parameter.requires_grad for parameter in world.parameters())


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-world"):
        shared_world(str(tmp_path / "no-such-world"))
