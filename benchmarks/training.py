"""One training step of the tokenizer: clips per second, and where the time goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import interleaved, table
from vaportok_rl.cli.pretrain import Pretrain
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import PRESETS, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig
from vaportok_rl.tokenizer.pretraining.loss import LENGTH_GROUPS, CompleteLoss
from vaportok_rl.tokenizer.pretraining.noise import ClipNoise
from vaportok_rl.tokenizer.pretraining.optimizers import build_optimizers
from vaportok_rl.tokenizer.pretraining.schedule import Schedule

PARTS = ("clips", "forward", "backward", "optimiser")
REACHED = 0.7
# Of the matrix product that is the yardstick.
ROWS = 4096


class Step:
    """A step in its parts, with nothing between them, on the default batch; the discriminator is off by default.

    Args:
        config: of the tokenizer.
        run: settings; the step is that after `REACHED` of its steps, where latents are quantised and lengths drawn.
    """

    def __init__(self, config: VaporTokConfig, run: PretrainConfig) -> None:
        torch.manual_seed(0)
        self.run, self.number = run, int(REACHED * run.steps)
        self.model = VaporTok(config, run.precision).train()  # type: ignore[arg-type]
        self.phase = Schedule(run).phase(self.number)
        self.loss = CompleteLoss(self.model, run.weights)
        self.optimizers = build_optimizers(self.model, run).values()
        self.source = ProceduralClips(frames=config.frames, size=config.size)
        self.positions = range(self.number * run.batch_size, (self.number + 1) * run.batch_size)

    def clips(self) -> None:
        """Draws the batch."""
        self.batch = self.source.batch(self.positions).clips

    def forward(self) -> None:
        """The complete loss."""
        noise = ClipNoise(self.run.seed, self.positions, self.batch.device)
        self.result = self.loss(self.batch, self.phase, noise.uniform)

    def backward(self) -> None:
        """Its gradients."""
        self.result.loss.backward()

    def optimiser(self) -> None:
        """Clipping, Muon and AdamW."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def flops(self) -> float:
        """Floating-point operations of forward and backward pass, in billions."""
        self.clips()
        with FlopCounterMode(display=False) as counter:
            self.forward()
            self.backward()
        self.optimiser()
        return float(counter.get_total_flops()) / 1e9


def measure(config: VaporTokConfig, run: PretrainConfig, repeats: int) -> list[str]:
    """One row: precision, rate, share of each part, and how much of the matrix-product rate the two passes reach."""
    step = Step(config, run)
    work = step.flops()
    kind = torch.bfloat16 if run.precision == "bfloat16" else torch.float32
    left, right = torch.randn(ROWS, config.width, dtype=kind), torch.randn(config.width, 4 * config.width, dtype=kind)
    runs: dict[str, Callable[[], object]] = {name: getattr(step, name) for name in PARTS}
    taken = interleaved(runs | {"mm": lambda: torch.mm(left, right)}, repeats)
    rate = 8e-9 * ROWS * config.width**2 / taken.pop("mm")
    whole = sum(taken.values())
    reached = work / (taken["forward"] + taken["backward"])
    shares = [f"{100 * taken[name] / whole:.0f} %" for name in PARTS]
    speeds = [f"{reached:.0f}", f"{rate:.0f}", f"{100 * reached / rate:.0f} %"]
    return [run.precision, f"{run.batch_size / whole:.0f}", *shares, *speeds]


def section(quick: bool) -> str:
    """The page's part about training."""
    recipe = Pretrain.from_recipe("nano")
    config, run = PRESETS[recipe.preset], recipe.config
    if quick:
        run = dataclasses.replace(run, batch_size=8)
    precisions = ("float32", "bfloat16")
    rows = [measure(config, dataclasses.replace(run, precision=one), 1 if quick else 5) for one in precisions]  # type: ignore[arg-type]
    head = ["", "clips/s", *PARTS, "GFLOP/s", "`torch.mm`", "of it"]
    return (
        "## A training step\n\n"
        f"`vaportok-rl pretrain --recipe nano`, {run.batch_size} procedural clips per step, at {REACHED:.0%} of the "
        f"run: latents quantised, lengths drawn, clips decoded in {LENGTH_GROUPS} groups of similar length without the "
        "tokens that all of a group drop. *GFLOP/s* is the work of forward and backward pass by the time they took, "
        "beside what `torch.mm` reaches on "
        f"[{ROWS} × width] by [width × 4 width].\n\n" + table(head, rows)
    )
