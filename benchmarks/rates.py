"""How much of this machine's matrix product rate encoding and decoding reach."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import interleaved, multiplications, table
from benchmarks.worlds import in_precision, large_world, random_clips
from vaportok_rl.tokenizer import Precision

ROWS, SHARE = 4096, 0.3
BATCHES = (1, 2, 4)


def section(quick: bool) -> str:
    """The page's part about rates."""
    world = large_world(quick)
    config = world.config
    width, kept = config.width, int(SHARE * config.tokens)
    rows: list[list[str]] = []
    for precision in ("float32", "bfloat16"):
        rows += _rates(precision, quick)
    return (
        "## Encode and decode against the matrix product rate\n\n"
        f"The rate of `torch.mm`, [{ROWS} × {width}] by [{width} × {4 * width}], is the yardstick: no transformer can "
        "be faster than its products. Batches take turns; the best one counts (target 75 % in float32). Decoding keeps "
        f"{kept} of {config.tokens} tokens.\n\n"
        + table(["", "`torch.mm`, GFLOP/s", "encode", "of it", "batch", "decode", "of it", "batch"], rows)
    )


def _rates(precision: Precision, quick: bool) -> list[list[str]]:
    exact = large_world(quick)
    world = in_precision(exact, precision)
    config = world.config
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = torch.randn(ROWS, config.width, dtype=dtype), torch.randn(config.width, 4 * config.width, dtype=dtype)
    kept = int(SHARE * config.tokens)
    runs: dict[str, Callable[[], object]] = {"mm": lambda: torch.mm(left, right)}
    products = {"mm": float(ROWS * 4 * config.width**2)}
    for batch in BATCHES:
        clips = random_clips(world, 1, batch)[0]
        codes = torch.randint(config.codebook_size, (batch, kept))
        runs[f"encode {batch}"] = lambda clips=clips: world.encode(clips)
        runs[f"decode {batch}"] = lambda codes=codes: world.decode(codes)
        products[f"encode {batch}"] = multiplications(lambda clips=clips: exact.encode(clips))
        products[f"decode {batch}"] = multiplications(lambda codes=codes: exact.decode(codes))
    taken = interleaved(runs, 1 if quick else 3)
    rates = {name: 2e-9 * products[name] / spent for name, spent in taken.items()}
    row = [precision, f"{rates['mm']:.0f}"]
    for part in ("encode", "decode"):
        best = max(BATCHES, key=lambda batch: rates[f"{part} {batch}"])
        rate = rates[f"{part} {best}"]
        row += [f"{rate:.0f}", f"**{100 * rate / rates['mm']:.0f} %**", str(best)]
    return [row]
