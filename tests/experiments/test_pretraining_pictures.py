"""Curves read back from TensorBoard, and the pictures of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.experiments.pretraining_pictures import PANELS, curves_figure, draw_run, read_scalars
from vaportok_rl.tokenizer import VaporTok


def write_events(folder: Path, steps: range, offset: float = 0.0) -> None:
    writer = SummaryWriter(str(folder))
    for step in steps:
        for name in PANELS[:-1]:
            writer.add_scalar(name, step + offset, step)
        writer.add_scalar("held_out/psnr/16", 20 + step, step)
        writer.add_scalar("held_out/psnr/4", 10 + step, step)
    writer.close()


def test_a_resumed_runs_curve_is_joined_by_step(tmp_path: Path) -> None:
    write_events(tmp_path, range(1, 7))
    write_events(tmp_path, range(5, 10), offset=0.5)  # steps 5 and 6 were lost to a kill and done again
    steps, values = read_scalars(tmp_path)["train/l1"]
    assert steps == list(range(1, 10))
    assert values[:4] == [1, 2, 3, 4]
    assert values[6:] == [7.5, 8.5, 9.5]


def test_every_panel_shows_its_numbers(tmp_path: Path) -> None:
    write_events(tmp_path, range(1, 41))
    figure = curves_figure(read_scalars(tmp_path))
    for axis in figure.axes[:-1]:
        raw, smooth = axis.get_lines()
        assert np.asarray(raw.get_ydata()).tolist() == list(range(1, 41))
        assert np.asarray(smooth.get_ydata())[[0, 9, 39]].tolist() == [1, 5.5, np.arange(21, 41).mean()]
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["n = 4", "n = 16"]


@pytest.mark.parametrize("count", [1, 9])
def test_a_run_is_drawn(tmp_path: Path, tiny_world: str, count: int) -> None:
    write_events(tmp_path, range(1, 4))
    world = VaporTok.from_pretrained(tiny_world)
    held_out = ProceduralClips(frames=world.config.frames, size=world.config.size, split="test", length=count)
    with torch.random.fork_rng():
        paths = draw_run(tmp_path, world, held_out)
    assert [path.name for path in paths] == ["curves.png", "reconstructions.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
