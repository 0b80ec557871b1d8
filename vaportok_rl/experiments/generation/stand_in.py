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
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation.stand_in import STAND_IN_FILE, StandIn
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.pretraining.resuming import STATE_FILE, check_unchanged, read_state, write_state

COMMAND = "python -m vaportok_rl.experiments.generation.stand_in"
GAMES = (
    "gym:CartPole-v1,MountainCar-v0,Acrobot-v1,LunarLander-v3,BipedalWalker-v3,"
    "minigrid:MiniGrid-DoorKey-8x8-v0,minigrid:MiniGrid-Dynamic-Obstacles-8x8-v0"
)
CLIPS = (*("procedural",) * 5, GAMES)
WARMUP = 0.05
SAVE_EVERY = 200


def turned(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Clips ``[B, 3, T, H, W]``, each played backwards or mirrored along either side with probability ½.

    No family depends on direction, so motion is learnt in all of them.
    """
    for axis in (2, 3, 4):
        chosen = torch.rand(len(clips), generator=generator) < 0.5
        clips = torch.where(chosen.view(-1, 1, 1, 1, 1), clips.flip(axis), clips)
    return clips


@torch.no_grad()
def half_reconstructed(clips: Tensor, tokenizer: VaporTok, generator: torch.Generator) -> Tensor:
    """Clips ``uint8 [B, 3, T, H, W]``; the first half as the tokenizer shows them with a random number of tokens.

    Returns:
        ``float32 [B, 3, T, H, W]`` in [0, 1].
    """
    half = len(clips) // 2
    length = int(torch.randint(1, tokenizer.config.tokens + 1, (), generator=generator))
    shown = tokenizer.decode(tokenizer.encode(clips[:half]).codes, length)
    return torch.cat([shown, clips[half:].float() / 255])


def train_stand_in(
    source: ClipSource,
    tokenizer: str | None = None,
    steps: int = 4000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    bfloat16: bool = False,
    on_step: Callable[[int, float, float], None] | None = None,
    folder: Path | None = None,
) -> StandIn:
    """Trains the network as a classifier (AdamW, cross-entropy, warm-up and half-cosine).

    With the same folder an interrupted run continues and gives bitwise the same network.

    Args:
        source: labelled clips.
        tokenizer: a frozen tokenizer that reconstructs half of the clips of each step, so that the network knows the
            classes in spite of its errors; None shows all clips as they are.
        steps: optimiser steps.
        batch_size: clips per step.
        learning_rate: its maximum.
        seed: of the weights, the order of the clips, how they are turned and from how many tokens they are shown.
        bfloat16: convolutions in bfloat16, twice as fast on processors with such products.
        on_step: called after each step with its number, loss and accuracy.
        folder: of the state, written every `SAVE_EVERY` steps and at the end.

    Returns:
        The network in evaluation mode; the global random state is unchanged.

    Raises:
        ValueError: the folder's run has other settings or clips.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StandIn(source.label_names)
    order = ClipOrder(len(source), seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    facts = {"clips": source.describe(), "steps": steps, "batch_size": batch_size}
    facts["tokenizer"] = tokenizer and weights_digest(tokenizer)
    facts |= {"learning_rate": learning_rate, "seed": seed, "bfloat16": bfloat16}
    world = None if tokenizer is None else VaporTok.from_pretrained(tokenizer)
    first = 0
    if folder is not None and (folder / STATE_FILE).is_file():
        state = read_state(folder)
        check_unchanged(folder, state["facts"], facts)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, steps):
        done = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(done / WARMUP, 0.5 * (1 + math.cos(math.pi * done)))
        batch = source.batch(order.take(step * batch_size, batch_size))
        generator = torch.Generator().manual_seed(derive_seed("turned", seed, step))
        clips = turned(batch.clips, generator)
        clips = clips if world is None else half_reconstructed(clips, world, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(clips).float()
        loss = F.cross_entropy(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if folder is not None and (not (step + 1) % SAVE_EVERY or step + 1 == steps):
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            write_state(folder, {**state, "facts": facts, "step": step + 1})
        if on_step is not None:
            on_step(step + 1, float(loss.detach()), float((logits.argmax(-1) == batch.labels).float().mean()))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(
    network: StandIn, source: ClipSource, count: int, world: VaporTok | None = None, batch_size: int = 64
) -> float:
    """Accuracy on the first ``count`` clips, among the source's classes, which are the network's first.

    With a tokenizer, on their reconstructions from all tokens.
    """
    hits, classes = 0, len(source.label_names)
    for start in range(0, count, batch_size):
        batch = source.batch(range(start, min(count, start + batch_size)))
        clips = batch.clips if world is None else world.decode(world.encode(batch.clips).codes)
        hits += int((network(clips)[:, :classes].argmax(-1) == batch.labels).sum())
    return hits / count


def main(
    out: Path = STAND_IN_FILE,
    folder: Path = Path("runs/stand-in"),
    clips: Sequence[str] = CLIPS,
    tokenizer: str = "nano",
    steps: int = 4000,
    batch_size: int = 64,
    held_out: int = 2048,
    seed: int = 0,
    bfloat16: bool = False,
) -> None:
    """Trains the built-in feature network and prints its accuracy on held-out clips.

    The same command continues an interrupted run.

    Args:
        out: file of the weights.
        folder: of the run's state.
        clips: sources of clips, each as ``--clips`` of ``train`` takes them; their labels are the classes.
        tokenizer: reconstructs half of the clips of each step.
        steps: optimiser steps.
        batch_size: clips per step.
        held_out: held-out clips for the accuracy.
        seed: of weights and order.
        bfloat16: twice as fast on processors with such products.
    """

    def tell(step: int, loss: float, right: float) -> None:
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss:.3f}, accuracy {100 * right:.0f} %", flush=True)

    network = train_stand_in(
        open_clips(clips), tokenizer, steps, batch_size, seed=seed, bfloat16=bfloat16, on_step=tell, folder=folder
    )
    first, every = (open_clips(part, split="test") for part in (clips[0], clips))
    world = VaporTok.from_pretrained(tokenizer)
    named = {
        f"of {clips[0]}": accuracy(network, first, held_out),
        f"of {clips[0]}, reconstructed": accuracy(network, first, held_out, world),
        "of all": accuracy(network, every, held_out),
        "of all, reconstructed": accuracy(network, every, held_out, world),
    }
    shares = ", ".join(f"{100 * share:.1f} % {kind}" for kind, share in named.items())
    told = (
        f"held-out clips named, of {held_out}: {shares}; {len(first.label_names)} and {len(every.label_names)} classes"
    )
    command = (
        f"{COMMAND} --tokenizer {tokenizer} --steps {steps} --batch-size {batch_size} --seed {seed}"
        f"{' --bfloat16' if bfloat16 else ''}"
    )
    network.save(out, command=command, accuracy=told)
    print(f"{out}: {told}")


if __name__ == "__main__":
    tyro.cli(main)
