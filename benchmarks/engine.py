"""The scoring engine against the literal method, at the sizes of nano and of the paper's tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import interleaved, multiplications, table
from benchmarks.worlds import in_precision, large_world, nano, random_clips, random_lengths
from vaportok_rl.envs import Outcome, ScoringEngine
from vaportok_rl.envs.scoring.literal import literal_scores

GROUPS = (1, 4, 8, 16)
SHARES = (0.125, 0.25, 0.5, 1.0)
TARGET_GROUP, TARGET_SHARE = 8, 0.3


def engine_run(engine: ScoringEngine, clips: Tensor, n_tokens: Tensor) -> Outcome:
    """What a group costs: one encode and all its scores."""
    return engine.score(engine.encode(clips), n_tokens)


def unshared_run(engine: ScoringEngine, clips: Tensor, n_tokens: Tensor) -> Outcome:
    """The same, but every path decodes for itself: each gets its own copy of the scenes."""
    group, paths, length = n_tokens.shape
    scene = engine.encode(clips)
    rows, steps = torch.arange(paths * length).div(length, rounding_mode="floor"), torch.arange(paths * length) % length
    copies = scene.at(rows.repeat(group), steps.repeat(group))
    return engine.score(copies, n_tokens.reshape(1, -1, 1))


def _small(quick: bool) -> str:
    world, paths, length = nano(), (1 if quick else 4), 4
    engine, clips = ScoringEngine(world), random_clips(world, paths, length)
    tokens = world.config.tokens
    head = ["G \\ mean length", *(f"{share:g} K" for share in SHARES)]
    rows = []
    for group in (1, TARGET_GROUP) if quick else GROUPS:
        row = [str(group)]
        for share in SHARES:
            lengths = random_lengths((group, paths, length), share * tokens, tokens)
            taken = interleaved(
                {
                    "literal": lambda lengths=lengths: literal_scores(world, clips, lengths[:1]),
                    "engine": lambda lengths=lengths: engine_run(engine, clips, lengths),
                },
                1 if quick else 3,
            )
            row.append(f"{group * taken['literal'] / taken['engine']:.1f}×")
        rows.append(row)
    lengths = random_lengths((TARGET_GROUP, paths, length), TARGET_SHARE * tokens, tokens)
    taken = interleaved(
        {
            "literal": lambda: literal_scores(world, clips, lengths[:1]),
            "engine": lambda: engine_run(engine, clips, lengths),
            "unshared": lambda: unshared_run(engine, clips, lengths),
        },
        1 if quick else 5,
    )
    literal = TARGET_GROUP * taken["literal"]
    return (
        f"G = {TARGET_GROUP}, mean length {TARGET_SHARE:g} K, {paths * length} clips, float32: "
        f"**{literal / taken['unshared']:.1f}×** before equal lengths of a clip are shared (target 2.5×), "
        f"**{literal / taken['engine']:.1f}×** after; {1e3 * literal:.0f} ms literally, {1e3 * taken['engine']:.0f} ms "
        f"with the engine.\n\n{table(head, rows)}"
    )


def _large(quick: bool) -> str:
    world = large_world(quick)
    half = in_precision(world, "bfloat16")
    engine, quick_engine = ScoringEngine(world), ScoringEngine(half)
    clips, tokens = random_clips(world, 1, 1), world.config.tokens
    lengths = random_lengths((TARGET_GROUP, 1, 1), TARGET_SHARE * tokens, tokens)
    taken = interleaved(
        {
            "literal": lambda: literal_scores(world, clips, lengths[:1]),
            "engine": lambda: engine_run(engine, clips, lengths),
            "literal half": lambda: literal_scores(half, clips, lengths[:1]),
            "engine half": lambda: engine_run(quick_engine, clips, lengths),
        },
        1 if quick else 3,
    )
    literal, literal_half = TARGET_GROUP * taken["literal"], TARGET_GROUP * taken["literal half"]
    counted = TARGET_GROUP * multiplications(lambda: literal_scores(world, clips, lengths[:1]))
    counted /= multiplications(lambda: engine_run(engine, clips, lengths))
    return (
        f"G = {TARGET_GROUP}, mean length {TARGET_SHARE:g} K, one clip:\n\n"
        f"- same dtype, float32: **{literal / taken['engine']:.2f}×** ({literal:.1f} s literally, "
        f"{taken['engine']:.1f} s with the engine; target 2.8×, and {counted:.2f}× by counting multiplications)\n"
        f"- same dtype, bfloat16: **{literal_half / taken['engine half']:.2f}×**\n"
        f"- as it comes, bfloat16 against float32: **{literal / taken['engine half']:.2f}×** (target 8× with AMX, 5× "
        "with AVX-512 BF16)"
    )


def section(quick: bool) -> str:
    """The page's part about the engine."""
    depth = " (fewer blocks in this quick run)" if quick else ""
    return (
        "## Engine against the literal method\n\n"
        "Literally, every path encodes every clip, decodes it at full length under a mask, and runs the prior. "
        "The literal method costs the same for every path, so it is timed on one and multiplied by G.\n\n"
        f"### nano\n\n{_small(quick)}\n\n### vaportok-b geometry, random weights{depth}\n\n{_large(quick)}"
    )
