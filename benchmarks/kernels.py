"""Attention kernels, precisions and the plain reference on this machine, alone and next to a busy process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from benchmarks.reference import PlainTokenizer
from benchmarks.timing import interleaved, table
from benchmarks.worlds import in_precision, large_world, random_clips
from vaportok_rl.tokenizer import Precision
from vaportok_rl.tokenizer.transformer import explicit_attention, fastest_on_cpu, threaded_attention

POSITIONS, SHARE = 2048, 0.3
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_SPIN = "while True: pass"


@contextmanager
def busy() -> Iterator[None]:
    """Another process that wants a core all the time."""
    other = subprocess.Popen([sys.executable, "-c", _SPIN])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def alone_and_busy(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each alternative, alone on the machine and beside a busy process."""
    alone = interleaved(runs, repeats)
    with busy():
        beside = interleaved(runs, repeats)
    return {name: (alone[name], beside[name]) for name in runs}


def attention_runs(width: int, heads: int, positions: int) -> dict[str, Callable[[], object]]:
    """Attention of one clip by every kernel, and the products of a block in both precisions."""
    q = torch.randn(1, heads, positions, width // heads)
    x, weight = torch.randn(positions, width), torch.randn(12 * width, width)
    half, x_half, weight_half = q.bfloat16(), x.bfloat16(), weight.bfloat16()
    return {
        "products, float32": lambda: F.linear(x, weight),
        "products, bfloat16": lambda: F.linear(x_half, weight_half),
        "attention fused, float32": lambda: F.scaled_dot_product_attention(q, q, q),
        "attention fused, bfloat16": lambda: F.scaled_dot_product_attention(half, half, half),
        "attention threaded, bfloat16": lambda: threaded_attention(half, half, half),
        "attention explicit, bfloat16": lambda: explicit_attention(half, half, half, None, False),
    }


@torch.no_grad()
def section(quick: bool) -> str:
    """The page's part about kernels."""
    world = large_world(quick)
    config, repeats = world.config, 1 if quick else 3
    parts = attention_runs(config.width, config.heads, POSITIONS)
    rows = [[name, *(f"{1e3 * spent:.0f} ms" for spent in both)] for name, both in alone_and_busy(parts, 5).items()]
    clips = random_clips(world, 1, 1)[0]
    codes = torch.randint(config.codebook_size, (1, config.tokens))
    kept = int(SHARE * config.tokens)
    runs: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        for whose, model in (("ours", in_precision(world, precision)), ("plain", PlainTokenizer(config, precision))):
            runs[f"encode, {precision}, {whose}"] = lambda model=model: model.encode(clips)
            for n in (config.tokens, kept):
                runs[f"decode {n} tokens, {precision}, {whose}"] = lambda model=model, n=n: model.decode(codes[:, :n])
    taken = alone_and_busy(runs, repeats)
    ratios = []
    for name in (run.removesuffix(", ours") for run in runs if run.endswith("ours")):
        ours, plain = taken[f"{name}, ours"], taken[f"{name}, plain"]
        ratios.append(
            [name, *(f"{a:.2f} s" for a in ours), *(f"**{b / a:.2f}×**" for a, b in zip(ours, plain, strict=True))]
        )
    chosen = fastest_on_cpu()
    return (
        "## Attention kernels and precisions\n\n"
        f"The products and the attention of a block of width {config.width} over {POSITIONS} positions. `auto` is "
        f"{chosen.precision} here, with {chosen.attention} attention, as `fastest_on_cpu` measured.\n\n"
        + table(["", "alone", "beside a busy process"], rows)
        + "\n\nEncoder and decoder against the same ones in plain PyTorch (`benchmarks/reference.py`), one clip at "
        f"`larp-l` size{', of fewer blocks' if quick else ''}; the ratios are the plain one's time over ours, and the "
        "target is at least 1.\n\n"
        + table(["", "ours alone", "ours beside", "plain / ours alone", "plain / ours beside"], ratios)
    )
