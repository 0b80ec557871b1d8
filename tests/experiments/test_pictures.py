from __future__ import annotations

from pathlib import Path

import decord
import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch

from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.pictures import (
    comparison_frames,
    contact_sheet,
    enlarge,
    gif_bytes,
    spread_rows,
    to_frames,
    write_video,
)


def test_frames_have_time_first_and_colour_last() -> None:
    video = torch.zeros(3, 2, 4, 4)
    video[0, 1] = 1.0
    frames = to_frames(video)
    assert frames.shape == (2, 4, 4, 3)
    assert frames[1, 0, 0].tolist() == [255, 0, 0]
    assert frames[0].max() == 0


def test_enlarging_repeats_pixels() -> None:
    frames = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = enlarge(frames, 5)
    assert large.shape == (1, 6, 6, 3)
    assert (large[0, :3, :3] == frames[0, 0, 0]).all()
    assert (large[0, 3:, 3:] == frames[0, 1, 1]).all()


def test_rows_run_from_simple_to_complex() -> None:
    score = torch.tensor([[0.9, 0.1], [0.5, 0.3]])
    assert spread_rows(score, 4) == [1, 3, 2, 0]
    assert spread_rows(score, 2) == [1, 0]
    assert spread_rows(score, 9) == [1, 3, 2, 0]


def test_the_bar_shows_the_tokens_kept(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=2)
    scene = process.sample_scene([np.random.default_rng(0)])
    lengths = torch.tensor([[4, 16]])
    frames = comparison_frames(process.engine, scene, lengths, [0, 1], size=16)
    clip, width = 16, 48
    assert frames.shape == (4, clip + 6, 2 * width, 3)
    green = (frames[0, clip + 1] == (90, 200, 120)).all(-1)
    assert green[:width].sum() == width * 4 // 16
    assert green[width:].all()
    # The left third of a tile is the clip itself.
    np.testing.assert_array_equal(frames[:, :clip, :clip], scene.clips[0, 0].permute(1, 2, 3, 0).numpy())


def test_a_video_can_be_read_back(tmp_path: Path) -> None:
    frames = np.full((4, 64, 96, 3), 200, dtype=np.uint8)
    path = write_video(tmp_path / "x.mp4", frames)
    again = decord.VideoReader(str(path)).get_batch(range(12)).asnumpy()
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
    assert any(axis.get_xlabel().startswith("7 tok") for axis in figure.axes)
    plt.close(figure)
