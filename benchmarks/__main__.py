"""Measures everything and writes the results page. Run: ``python -m benchmarks`` in the repository's root."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import engine, faces, growth, kernels, memory, table, training
from benchmarks.timing import machine

PARTS = {
    "engine": engine,
    "kernels": kernels,
    "faces": faces,
    "table": table,
    "growth": growth,
    "memory": memory,
    "training": training,
}


@dataclass(frozen=True)
class Arguments:
    """Measure how fast it is on this machine."""

    quick: bool = False
    """Fewer repeats, a shallow large world and no page: minutes become seconds, and figures rough."""
    only: tuple[str, ...] = tuple(PARTS)
    """Parts to measure; anything but all of them writes no page."""
    out: Path = Path("docs/benchmarks.md")
    """The page."""


def main(arguments: Annotated[Arguments, tyro.conf.arg(name="")]) -> None:
    """Measure how fast it is on this machine, print it, and write the page.

    Args:
        arguments: what to measure.
    """
    for name in arguments.only:
        if name not in PARTS:
            raise SystemExit(f"Expected parts among {', '.join(PARTS)}, got {name!r}.")
    started = time.perf_counter()
    head = (
        "# Benchmarks\n\n"
        "Written by `python -m benchmarks`, in one run on one machine: "
        f"{machine()}. Ratios are of medians of repeats that took turns; absolute times are this machine's."
    )
    sections = [head]
    print(head, flush=True)
    for name in arguments.only:
        sections.append(PARTS[name].section(arguments.quick))
        print(f"\n{sections[-1]}\n\n({time.perf_counter() - started:.0f} s)", flush=True)
    if not arguments.quick and arguments.only == tuple(PARTS):
        arguments.out.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks")
