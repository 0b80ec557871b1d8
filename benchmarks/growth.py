"""How the cost of a group grows with G, L, K and the number of clips."""

from __future__ import annotations

import dataclasses

from benchmarks.engine import engine_run
from benchmarks.timing import interleaved, table
from benchmarks.worlds import nano, random_clips, random_lengths, random_world
from vaportok_rl.envs import ScoringEngine
from vaportok_rl.tokenizer import PRESETS, PriorConfig, VaporTok

SIZES = (1, 2, 4, 8, 16)
TOKENS = (16, 32, 64, 128, 256)
SHARE = 0.3


def _row(name: str, sizes: tuple[int, ...], costs: list[float]) -> list[str]:
    return [name, *(f"{size}: {cost / costs[0]:.1f}×" for size, cost in zip(sizes, costs, strict=True))]


def _cost(world: VaporTok, group: int, paths: int, length: int, repeats: int) -> float:
    engine, clips = ScoringEngine(world), random_clips(world, paths, length)
    n_tokens = random_lengths((group, paths, length), SHARE * world.config.tokens, world.config.tokens)
    return interleaved({"engine": lambda: engine_run(engine, clips, n_tokens)}, repeats)["engine"]


def section(quick: bool) -> str:
    """The page's part about growth."""
    world, repeats = nano(), (1 if quick else 5)
    rows = [
        _row("G, of one path of 4 clips", SIZES, [_cost(world, size, 1, 4, repeats) for size in SIZES]),
        _row("L, of 8 paths", SIZES, [_cost(world, 8, 1, size, repeats) for size in SIZES]),
        _row("scenes of 2 clips, G = 8", SIZES, [_cost(world, 8, size, 2, repeats) for size in SIZES]),
    ]
    costs = []
    for tokens in TOKENS:
        config = dataclasses.replace(PRESETS["nano"], tokens=tokens, prior=PriorConfig(positions=tokens))
        costs.append(_cost(random_world(config), 8, 1, 4, repeats))
    rows.append(_row("K, of 8 paths of 4 clips, random weights", TOKENS, costs))
    return (
        "## How cost grows\n\n"
        f"Encoding and scoring on nano at a mean length of {SHARE:g} K; each figure is the cost over that of the row's "
        "first.\n\n" + table(["", *[""] * len(SIZES)], rows)
    )
