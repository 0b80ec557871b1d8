"""One world per checkpoint, device and precision."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from vaportok_rl.envs import TaildropEnv, TaildropVectorEnv, VaporReward, shared_world
from vaportok_rl.envs.scoring.worlds import shared_distances
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.transformer import Fastest


def test_the_same_object_twice(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = shared_world(tiny_world)
    assert shared_world(tiny_world) is world
    # However the folder is written.
    assert shared_world(tiny_world + os.sep) is world
    monkeypatch.chdir(Path(tiny_world).parent)
    assert shared_world(Path(tiny_world).name) is world


def test_a_rewritten_folder_is_loaded_anew(tiny_world: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_world, tmp_path / "world"))
    before = shared_world(str(folder))
    changed = VaporTok.from_pretrained(folder)
    with torch.no_grad():
        changed.taildrop_module.head.bias.add_(1)
    changed.save_pretrained(folder)
    after = shared_world(str(folder))
    assert torch.equal(after.taildrop_module.head.bias, before.taildrop_module.head.bias + 1)
    assert shared_world(str(folder)) is after


def test_every_environment_shares_it(tiny_world: str) -> None:
    envs = [TaildropEnv(tokenizer=tiny_world), TaildropVectorEnv(2, tokenizer=tiny_world)]
    assert all(env.process.engine.world is shared_world(tiny_world) for env in envs)


def test_another_precision_is_another_world(tiny_world: str) -> None:
    world = shared_world(tiny_world, precision="bfloat16")
    assert world is not shared_world(tiny_world)
    assert world.precision == "bfloat16"


@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_auto_is_the_world_that_it_chooses(tiny_world: str, monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setattr("vaportok_rl.envs.scoring.worlds._WORLDS", {})
    monkeypatch.setattr("vaportok_rl.tokenizer.precision.fastest_on_cpu", lambda: Fastest("bfloat16", "fused"))
    monkeypatch.setattr("vaportok_rl.tokenizer.precision.BFLOAT16_WIDTH", 1 if chosen == "bfloat16" else 10_000)
    world = shared_world(tiny_world)
    assert world.precision == chosen
    assert shared_world(tiny_world, precision=chosen) is world  # type: ignore[arg-type]
    assert shared_world(tiny_world, precision="auto") is world
    rounded = world.encoder.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert rounded == (chosen == "bfloat16")


def test_networks_of_reward_terms_are_shared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    class Network:
        def __init__(self, network: str, backbone: str | None) -> None:
            loaded.append(network)

        def to(self, device: str) -> "Network":
            return self

    monkeypatch.setattr("vaportok_rl.envs.rewards.pixels.PerceptualDistance", Network)
    monkeypatch.setattr("vaportok_rl.envs.scoring.worlds._DISTANCES", {})
    assert shared_distances(VaporReward()) == {}
    first = shared_distances(VaporReward({"lpips": 1.0}))["lpips"]
    assert shared_distances(VaporReward({"lpips": 0.5}))["lpips"] is first
    assert shared_distances(VaporReward({"lpips": 0.5}, perceptual_network="alex"))["lpips"] is not first
    assert loaded == ["vgg", "alex"]
