from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import render_decision
from vaportok_rl.experiments.gallery import make_gallery, proportional_lengths, rendered_frame, worlds_figure
from vaportok_rl.tokenizer import VaporTok


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
    first, second = (
        make_gallery(tmp_path / name, tiny_world, path_length=8, compare_with=tiny_world)
        for name in ("first", "second")
    )
    assert [path.name for path in first] == ["rendered_frame.png", "lengths.png", "worlds.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        with Image.open(one) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100


def test_the_same_clips_stand_side_by_side_under_both_worlds(tiny_world: str) -> None:
    world, other = VaporTok.from_pretrained(tiny_world), VaporTok.from_pretrained(tiny_world)
    with torch.no_grad():
        other.final_layer.linear.bias.add_(1.0)
    size = world.config
    clips = torch.randint(0, 256, (2, 3, size.frames, size.size, size.size), dtype=torch.uint8)
    figure = worlds_figure({"before": other, "now": world}, clips, (4, 16))
    titles = ["original", "4 tokens, before", "4 tokens, now", "16 tokens, before", "16 tokens, now"]
    assert [axis.get_title() for axis in figure.axes[:5]] == titles
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[5:]]
    np.testing.assert_array_equal(shown[0], clips[1, :, size.frames // 2].permute(1, 2, 0).numpy())
    again = world.decode(world.encode(clips).codes, 16)[1, :, size.frames // 2].clamp(0, 1) * 255
    np.testing.assert_array_equal(shown[4], again.round().byte().permute(1, 2, 0).numpy())
    assert not np.array_equal(shown[3], shown[4])
