"""The scoring engine against the literal method, at the sizes of nano and of the paper's tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import interleaved, table
from benchmarks.worlds import in_precision, large_world, nano, random_clips, random_lengths
from vaportok_rl.envs import Outcome, ScoringEngine
from vaportok_rl.envs.scoring.literal import literal_scores
from vaportok_rl.tokenizer import VaporTok

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
    counted = literal_products(world, TARGET_GROUP) / engine_products(world, lengths)
    head = ["G \\ mean length", *(f"{share:g} K" for share in SHARES)]
    rows = []
    for group in () if quick else GROUPS:
        row = [str(group)]
        for share in SHARES:
            some = random_lengths((group, 1, 1), share * tokens, tokens)
            # One turn each: the literal method costs the same for every path, and was measured above.
            both = [
                interleaved({"engine": lambda e=e, some=some: engine_run(e, clips, some)}, 0 if quick else 1)["engine"]
                for e in (engine, quick_engine)
            ]
            per_path = taken["literal"] * group
            row.append(f"{per_path / both[0]:.1f}× / {per_path / both[1]:.1f}×")
        rows.append(row)
    grid = (
        ""
        if quick
        else "\n\n" + table(head, rows) + "\n\nfloat32 / bfloat16, both against the literal method in float32."
    )
    return (
        f"G = {TARGET_GROUP}, mean length {TARGET_SHARE:g} K, one clip:\n\n"
        f"- same dtype, float32: **{literal / taken['engine']:.2f}×** ({literal:.1f} s literally, "
        f"{taken['engine']:.1f} s with the engine; target 2.8×, and {counted:.2f}× by counting multiplications)\n"
        f"- same dtype, bfloat16: **{literal_half / taken['engine half']:.2f}×**\n"
        f"- as it comes, bfloat16 against float32: **{literal / taken['engine half']:.2f}×** (target 8×)"
        f"{grid}"
    )


def transformer_products(width: int, depth: int, sequence: int, outputs: int) -> float:
    """Multiplications in a stack whose last block computes only some outputs."""

    def block(queries: int) -> float:
        return (2 * sequence + 10 * queries) * width**2 + 2 * queries * sequence * width

    return (depth - 1) * block(sequence) + block(outputs)


def _prior_products(world: VaporTok) -> float:
    config = world.config
    # Causal attention: half of the scores.
    each = 12 * config.prior.width**2 + config.tokens * config.prior.width
    return config.tokens * (config.prior.layers * each + config.codebook_size * config.code_width)


def encode_products(world: VaporTok) -> float:
    """Multiplications in encoding one clip."""
    config = world.config
    return transformer_products(config.width, config.encoder_depth, config.patches + config.tokens, config.tokens)


def decode_products(world: VaporTok, n: int) -> float:
    """Multiplications in decoding n tokens."""
    config = world.config
    return transformer_products(config.width, config.decoder_depth, config.patches + n, config.patches)


def engine_products(world: VaporTok, n_tokens: Tensor) -> float:
    """Multiplications that the engine needs for one clip."""
    decoded = sum(decode_products(world, n) for n in set(n_tokens.flatten().tolist()))
    return encode_products(world) + _prior_products(world) + decoded


def literal_products(world: VaporTok, group: int) -> float:
    """Multiplications of the literal method for G paths through one clip."""
    config = world.config
    whole = config.patches + config.tokens
    both = sum(
        transformer_products(config.width, depth, whole, whole)
        for depth in (config.encoder_depth, config.decoder_depth)
    )
    return group * (both + _prior_products(world))


def section(quick: bool) -> str:
    """The page's part about the engine."""
    depth = " (fewer blocks in this quick run)" if quick else ""
    return (
        "## Engine against the literal method\n\n"
        "Literally, every path encodes every clip, decodes it at full length under a mask, and runs the prior. "
        "The literal method costs the same for every path, so it is timed on one and multiplied by G.\n\n"
        f"### nano\n\n{_small(quick)}\n\n### vaportok-b geometry, random weights{depth}\n\n{_large(quick)}"
    )
