"""A step split over two processes gives the gradients of one."""

import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = """
import sys
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
    calibration_clips=16, weights=LossWeights(adversarial=0.1), adversarial_from=0.4,
)
one = Pretrainer(geometry, config, ProceduralClips(frames=4, size=16, length=40), Path(sys.argv[1]).parent)
one.step = 15
count = one.loader.local_batch_size
clips = one.loader.clips_at(15 * 8 + one.processes.rank * count, count)
one.compute_gradients(clips, one.schedule.phase(one.step))
named = [*one.model.named_parameters(), *one.critic.discriminator.named_parameters(prefix="discriminator")]
if one.processes.is_main:
    gradients = {name: value.grad for name, value in named if value.grad is not None}
    buffers = {name: value.clone() for name, value in one.model.named_buffers() if "running" in name}
    torch.save({"gradients": gradients, "buffers": buffers, "world": one.processes.count}, sys.argv[1])
"""


def test_two_processes_reproduce_the_gradients_of_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    found = []
    for launcher in ((), ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")):
        command = [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / "found.pt")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / "found.pt", weights_only=True))
    one, two = found
    assert (one["world"], two["world"]) == (1, 2)
    assert one["gradients"].keys() == two["gradients"].keys()
    assert any(name.startswith("discriminator") for name in one["gradients"])
    for name, value in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], value, rtol=0, atol=1e-6, msg=lambda text, n=name: n + text)
    assert max(value.abs().max().item() for value in one["gradients"].values()) > 1e-3
    for name, value in one["buffers"].items():
        torch.testing.assert_close(two["buffers"][name], value)
