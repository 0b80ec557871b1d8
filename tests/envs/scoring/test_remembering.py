"""An engine that remembers a scene: the same numbers, and nothing decoded twice."""

import numpy as np
import pytest
import torch

from vaportok_rl.agents import HeldOut, build_length_policy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.tokenizer import VaporTok


def test_known_scenes_are_looked_up_and_others_scored(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, process = (TaildropProcess(tokenizer=tiny_world, path_length=3, split="test") for _ in range(2))
    specs = ["oracle", "budget:5", "lagrangian:5", "threshold:0.2", "threshold:0.2:binary", "fixed:3"]
    policies = [build_length_policy(spec, process) for spec in specs]
    held_out = HeldOut(process, scenes=3)
    expected = [build_length_policy(spec, plain)(held_out.scene, torch.Generator()).n_tokens for spec in specs]
    with monkeypatch.context() as patched:
        patched.setattr(VaporTok, "decode", None)
        patched.setattr(VaporTok, "decode_unchecked", None)
        for spec, policy, lengths in zip(specs, policies, expected, strict=True):
            assert torch.equal(policy(held_out.scene, torch.Generator()).n_tokens, lengths), spec
    other = process.sample_scene([np.random.default_rng(0)])
    lengths = torch.tensor([[[3, 1, 16]]])
    assert torch.equal(process.engine.score(other, lengths).mse, plain.engine.score(other, lengths).mse)
    assert torch.equal(process.engine.score_all(other).mse, plain.engine.score_all(other).mse)
