"""The most memory that a process ever held, while it encoded and scored."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from benchmarks.timing import table
from benchmarks.worlds import in_precision, large_world, nano, random_clips, random_lengths
from vaportok_rl.envs import ScoringEngine

GROUP = 8
CASES = (("nano", 64), ("vaportok-b", 64))


def measure(name: str, clips: int, quick: bool) -> str:
    """One process's peak in GiB, and how many clips it encodes at once.

    The large world has one block of each kind, and the weights of the others are added: what blocks compute with is
    freed before the next one begins.
    """
    if name == "nano":
        world, missing = nano(), 0
    else:
        full = large_world(False)
        missing = sum(value.numel() for value in full.parameters()) * 4
        del full
        # Made after the full one is gone, but its memory counts in the peak: at least what a load holds for a moment.
        world = in_precision(large_world(False, depth=1), "float32")
        missing -= sum(value.numel() for value in world.parameters()) * 4
    engine = ScoringEngine(world)
    videos = random_clips(world, 1, 4 if quick else clips)
    scene = engine.encode(videos)
    # The longest sequences make the largest batches; the scattered ones of the other paths are smaller.
    tokens = world.config.tokens
    engine.score(scene, torch.full((1, *scene.shape), tokens))
    if name == "nano":
        engine.score(scene, random_lengths((GROUP, *scene.shape), 0.3 * tokens, tokens))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + missing
    return f"{peak / 2**30:.1f} GiB, {engine.clips_at_once}"


def section(quick: bool) -> str:
    """The page's part about memory."""
    rows = []
    for name, clips in CASES:
        run = [sys.executable, "-m", "benchmarks.memory", name, str(clips), str(int(quick))]
        peak, _, at_once = (
            subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip().partition(", ")
        )
        rows.append([f"{name}, {clips} clips, G = {GROUP}", peak, at_once])
    return (
        "## Memory\n\n"
        "The largest resident size of a process that encodes and scores, in float32, with `max_batch_tokens` as it "
        "comes. The large world is measured with one block of each kind, and the other blocks' weights are added.\n\n"
        + table(["", "peak", "clips in one call"], rows)
    )


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"))
