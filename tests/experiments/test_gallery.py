from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import render_decision
from vaportok_rl.experiments.gallery import make_gallery, proportional_lengths, rendered_frame


def test_lengths_rise_from_one_to_all_tokens() -> None:
    lengths = proportional_lengths(torch.tensor([[0.0, 0.1, 0.5, 1.0]]), 64)
    assert lengths.tolist() == [[1, 7, 33, 64]]
    assert lengths.dtype == torch.int64


def test_the_frame_is_the_last_decision_with_the_terms_that_count(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, split="test", path_length=3, reward={"weights": {"diversity": 0.0}})
    engine = process.engine
    scene = process.sample_scene([np.random.default_rng(5)])
    lengths = 1 + (engine.world.complexity_scale.score(scene.complexity) * 15).round().long()
    outcome = engine.score(scene, lengths[None])
    n = lengths[0, -1].item()
    expected = render_decision(
        scene.clips[0, -1].permute(1, 2, 3, 0).numpy(),
        (engine.reconstruct(scene, lengths)[0, -1].clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).numpy(),
        n,
        16,
        {
            "efficiency": 1 - n / 16,
            "penalty": -(max(0.0, 1 - n / 2) ** 2),
            "reconstruction": -60 * outcome.mse[0, 0, -1].item(),
            "generation": outcome.accuracy[0, 0, -1].item(),
        },
        frame=2,
    )
    np.testing.assert_array_equal(rendered_frame(process, seed=5), expected)


def test_the_gallery_is_the_same_every_time(tiny_world: str, tmp_path: Path) -> None:
    first = make_gallery(tmp_path / "first", tiny_world, path_length=8)
    second = make_gallery(tmp_path / "second", tiny_world, path_length=8)
    assert [path.name for path in first] == ["rendered_frame.png", "lengths.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        with Image.open(one) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100
