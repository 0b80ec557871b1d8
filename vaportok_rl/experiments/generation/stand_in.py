"""Trains the built-in feature network on procedural families and games.

Run: python -m vaportok_rl.experiments.generation.stand_in
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.evaluation.stand_in import STAND_IN_FILE, StandIn

COMMAND = "python -m vaportok_rl.experiments.generation.stand_in"
GAMES = (
    "gym:CartPole-v1,MountainCar-v0,Acrobot-v1,LunarLander-v3,BipedalWalker-v3,"
    "minigrid:MiniGrid-DoorKey-8x8-v0,minigrid:MiniGrid-Dynamic-Obstacles-8x8-v0"
)
CLIPS = ("procedural", "procedural", "procedural", GAMES)
WARMUP = 0.05


def train_stand_in(
    source: ClipSource,
    steps: int = 1500,
    batch_size: int = 48,
    learning_rate: float = 2e-3,
    seed: int = 0,
    on_step: Callable[[int, float, float], None] | None = None,
) -> StandIn:
    """Trains the network as a classifier (AdamW, cross-entropy, warm-up and half-cosine).

    Args:
        source: labelled clips.
        steps: optimiser steps.
        batch_size: clips per step.
        learning_rate: its maximum.
        seed: of the weights and the order of the clips.
        on_step: called after each step with its number, loss and accuracy.

    Returns:
        The network in evaluation mode; the global random state is unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StandIn(source.label_names)
    order = ClipOrder(len(source), seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    for step in range(steps):
        done = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(done / WARMUP, 0.5 * (1 + math.cos(math.pi * done)))
        batch = source.batch(order.take(step * batch_size, batch_size))
        logits = network(batch.clips)
        loss = F.cross_entropy(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, float(loss.detach()), float((logits.argmax(-1) == batch.labels).float().mean()))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: StandIn, source: ClipSource, count: int, batch_size: int = 64) -> float:
    """Accuracy on the first ``count`` clips."""
    hits = 0
    for start in range(0, count, batch_size):
        batch = source.batch(range(start, min(count, start + batch_size)))
        hits += int((network(batch.clips).argmax(-1) == batch.labels).sum())
    return hits / count


def main(
    out: Path = STAND_IN_FILE,
    clips: Sequence[str] = CLIPS,
    steps: int = 1500,
    batch_size: int = 48,
    held_out: int = 1024,
    seed: int = 0,
) -> None:
    """Trains the built-in feature network and prints its accuracy on held-out clips.

    Args:
        out: file of the weights.
        clips: sources of clips, each as ``--clips`` of ``train`` takes them; their labels are the classes.
        steps: optimiser steps.
        batch_size: clips per step.
        held_out: held-out clips for the accuracy.
        seed: of weights and order.
    """

    def tell(step: int, loss: float, right: float) -> None:
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss:.3f}, accuracy {100 * right:.0f} %", flush=True)

    network = train_stand_in(open_clips(clips), steps, batch_size, seed=seed, on_step=tell)
    share = accuracy(network, open_clips(clips, split="test"), held_out)
    told = f"{100 * share:.1f} % of {held_out} held-out clips, {len(network.label_names)} classes"
    network.save(out, command=f"{COMMAND} --steps {steps} --batch-size {batch_size} --seed {seed}", accuracy=told)
    print(f"{out}: {told}")


if __name__ == "__main__":
    tyro.cli(main)
