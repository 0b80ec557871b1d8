"""Runs in processes of their own: interrupted and resumed, and split over two."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from vaportok_rl.tokenizer.pretraining.resuming import MODEL_FOLDER, STATE_FILE

# What a process is told: a tiny tokenizer that goes through every phase in thirty steps.
SCRIPT = """
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import PriorConfig, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig, Pretrainer

torch.set_num_threads(1)
geometry = VaporTokConfig(
    frames=4, size=16, tokens=8, width=16, encoder_depth=1, decoder_depth=1, heads=2, codebook_size=32, code_width=4,
    prior=PriorConfig(layers=1, heads=2, width=16, positions=8),
)
config = PretrainConfig(
    steps=30, batch_size=8, precision="float32", continuous_until=0.1, quantized_from=0.2, random_lengths_from=0.3,
    codebook_clips=16, calibration_clips=16, revive_every=4, save_every=3, validate_every=1000,
    weights=LossWeights(adversarial=0.1), adversarial_from=0.4, ema_decay=0.9,
)


def pretrainer(folder, resume=False, **settings):
    clips = ProceduralClips(frames=4, size=16, length=40)
    return Pretrainer(geometry, replace(config, **settings), clips, Path(folder), resume=resume)
"""

TRAIN = """
one = pretrainer(sys.argv[1], resume=sys.argv[2] == "resume")


def on_step(step, terms):
    print(step, flush=True)
    time.sleep(float(sys.argv[3]))


one.run(on_step)
"""

GRADIENTS = """
one = pretrainer(sys.argv[1], batch_size=8)
one.step = 15
phase = one.schedule.phase(one.step)
count = one.loader.local_batch_size
clips = one.loader.clips_at(15 * 8 + one.accelerator.process_index * count, count)
result = one.compute_gradients(clips, phase)[-1]
named = list(one.model.named_parameters()) + [
    (f"discriminator.{name}", value) for name, value in one.critic.discriminator.named_parameters()
]
if one.is_main:
    gradients = {name: value.grad for name, value in named if value.grad is not None}
    buffers = {name: value.clone() for name, value in one.model.named_buffers() if "running" in name}
    torch.save({"gradients": gradients, "buffers": buffers, "world": one.accelerator.num_processes}, sys.argv[2])
"""


def start(tmp_path: Path, body: str, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    script = tmp_path / f"script-{abs(hash(body))}.py"
    script.write_text(SCRIPT + body)
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / STATE_FILE, weights_only=True)
    assert state["step"] == 30
    parts = {"model": state["model"], "average": state["average"], "critic": state["critic"]["discriminator"]}
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    finish(start(tmp_path, TRAIN, str(tmp_path / "whole"), "fresh", "0"))
    doomed = start(tmp_path, TRAIN, str(tmp_path / "parts"), "fresh", "0.05")
    assert doomed.stdout is not None
    for line in doomed.stdout:
        if int(line) >= 14:
            doomed.send_signal(signal.SIGINT)
            break
    _, errors = doomed.communicate(timeout=60)
    assert doomed.returncode != 0
    reached = torch.load(tmp_path / "parts" / STATE_FILE, weights_only=True)["step"]
    assert "KeyboardInterrupt" in errors
    assert 14 <= reached < 30  # the step under way is finished and kept
    seen = finish(start(tmp_path, TRAIN, str(tmp_path / "parts"), "resume", "0")).split()
    assert [int(step) for step in seen] == list(range(reached + 1, 31))
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name
    whole, parts = (tmp_path / name / MODEL_FOLDER / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_two_processes_reproduce_the_gradients_of_one(tmp_path: Path) -> None:
    alone, both = tmp_path / "alone.pt", tmp_path / "both.pt"
    finish(start(tmp_path, GRADIENTS, str(tmp_path / "run"), str(alone)))
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    finish(start(tmp_path, GRADIENTS, str(tmp_path / "run"), str(both), launcher=launcher))
    one, two = (torch.load(path, weights_only=True) for path in (alone, both))
    assert (one["world"], two["world"]) == (1, 2)
    assert one["gradients"].keys() == two["gradients"].keys()
    assert any(name.startswith("discriminator") for name in one["gradients"])
    for name, value in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], value, rtol=0, atol=1e-6, msg=lambda text, n=name: n + text)
    assert max(value.abs().max().item() for value in one["gradients"].values()) > 1e-3
    for name, value in one["buffers"].items():
        torch.testing.assert_close(two["buffers"][name], value)
