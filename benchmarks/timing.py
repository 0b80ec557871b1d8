"""Timings that can be compared: alternatives take turns, and the median of each counts."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vaportok_rl.runtime.machine import processor_name
from vaportok_rl.tokenizer.precision import multiplies_bfloat16


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes, on an accelerator until it is done."""
    _finish()
    started = time.perf_counter()
    run()
    _finish()
    return time.perf_counter() - started


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each alternative; in every repeat all of them take a turn, after one that is not counted.

    Args:
        runs: alternatives by name.
        repeats: turns that count.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if turn:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def multiplications(run: Callable[[], object]) -> float:
    """How many torch counts in a call; not every version counts those of the fused attention on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 2


def machine() -> str:
    """The processor, the threads in use and the versions, for the head of a page."""
    halves = "with" if multiplies_bfloat16("cpu") else "without"
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()} {halves} "
        f"bfloat16 products; torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
