from __future__ import annotations

from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import torch

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import render_decision
from vaportok_rl.experiments.reports.pictures import (
    comparison_frames,
    contact_sheet,
    gif_bytes,
    legible_rows,
    spread_rows,
    write_video,
)


def test_rows_run_from_simple_to_complex() -> None:
    score = torch.tensor([[0.9, 0.1], [0.5, 0.3]])
    assert spread_rows(score, 4) == [1, 3, 2, 0]
    assert spread_rows(score, 2) == [1, 0]
    assert spread_rows(score, 9) == [1, 3, 2, 0]


def test_a_sheet_shows_the_clip_of_the_strongest_contrast_in_each_range_of_complexity() -> None:
    contrast = torch.tensor([0.1, 0.4, 0.3, 0.2])
    pattern = torch.tensor([-1.0, 1.0]).repeat(4, 3, 5, 2, 1)
    clips = 0.5 + contrast[:, None, None, None, None] * pattern
    clips[0, :, :2] += torch.rand(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))  # not in the middle frame
    assert legible_rows(torch.tensor([0.9, 0.1, 0.5, 0.3]), clips, 2) == [1, 2]
    assert legible_rows(torch.tensor([0.9, 0.1, 0.5, 0.3]), clips, 9) == [1, 3, 2, 0]


def test_comparisons_are_tiled_decisions(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    scene = process.sample_scene([np.random.default_rng(0)])
    lengths = torch.tensor([[4, 16, 9]])
    frames = comparison_frames(process.engine, scene, lengths, [0, 2], size=20)
    decoded = process.engine.reconstruct(scene, lengths)[0]
    expected = [
        render_decision(
            scene.clips[0, row].permute(1, 2, 3, 0).numpy(),
            (decoded[row].clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).numpy(),
            lengths[0, row].item(),
            16,
            {},
            frame=3,
            scale=2,
        )
        for row in (0, 2)
    ]
    assert len(frames) == 4
    assert all(side % 2 == 0 for side in frames.shape[1:3])
    np.testing.assert_array_equal(frames[3], np.concatenate(expected, axis=1))


def test_a_video_can_be_read_back(tmp_path: Path) -> None:
    frames = np.full((4, 64, 96, 3), 200, dtype=np.uint8)
    path = write_video(tmp_path / "x.mp4", frames)
    with av.open(str(path)) as container:
        again = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert again.shape == (12, 64, 96, 3)
    assert abs(float(again.mean()) - 200) < 4


def test_a_gif_has_every_frame() -> None:
    frames = np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in (0, 100, 200)])
    again = imageio.imread(gif_bytes(frames), extension=".gif", plugin="pillow", index=None)
    assert len(again) == 3


def test_the_contact_sheet_labels_what_was_kept(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=2)
    scene = process.sample_scene([np.random.default_rng(0)])
    score = process.engine.world.complexity_scale.score(scene.complexity)
    figure = contact_sheet(process.engine, scene, score, {"mine": torch.tensor([[7, 7]])}, count=2)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["original", "n = 1", "n = 4", "n = 16", "mine"]
    labels = [axis.get_xlabel() for axis in figure.axes]
    simplest, most_complex = sorted(score.flatten().tolist())
    assert labels[0] == f"complexity {simplest:.2f}"
    assert labels[5] == f"complexity {most_complex:.2f}"
    kept = [label.partition(" · ")[0] for label in labels]
    assert kept[1:5] == kept[6:] == ["1 token", "4 tokens", "16 tokens", "7 tokens"]
