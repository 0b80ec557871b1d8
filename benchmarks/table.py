"""The environment on an outcome table: decisions a second by face and number of environments, and the time to build.

Run: python benchmarks/table.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from vaportok_rl.envs import Outcome, TaildropProcess, TaildropVectorEnv
from vaportok_rl.envs.outcome_table import OutcomeTable, TableSplit
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.table_building import TableBuilder, plan_table


@dataclass(frozen=True)
class Arguments:
    """How fast the environment is without a network."""

    table: Path | None = None
    """An outcome table; a new one of `clips` procedural clips if not given."""
    clips: int = 128
    """Training clips of the new table."""
    grid: str = "4"
    """Grid step of the new table."""
    tokenizer: str = "nano"
    """Tokenizer of the new table."""
    environments: tuple[int, ...] = (1, 8, 64, 512, 4096)
    """Numbers of environments."""
    group_sizes: tuple[int, ...] = (1, 8)
    """Group sizes G."""
    tensor_shape: tuple[int, int, int] = (8, 512, 8)
    """Group size G, scenes P and path length L of the tensor face."""
    seconds: float = 1.0
    """Least time a measurement."""
    repeats: int = 3
    """Measurements; the median is printed."""


def rate(run: Callable[[], int], seconds: float, repeats: int) -> float:
    """Median of how many a second, where each run returns how many it did."""
    run()
    rates = []
    for _ in range(repeats):
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            done += run()
        rates.append(done / (time.perf_counter() - started))
    return sorted(rates)[repeats // 2]


def one_by_one(split: TableSplit, scene: Scene, n_tokens: torch.Tensor) -> Outcome:
    """The lookup as a Python loop over decisions, for comparison."""
    mse, accuracy = torch.empty(n_tokens.shape), torch.empty(n_tokens.shape)
    for place in np.ndindex(*n_tokens.shape):
        row, n = int(scene.indices[place[1:]]), int(n_tokens[place])
        mse[place] = float(split.mse[row, n - 1])
        accuracy[place] = int(split.hits[row, n - 1]) / max(1, n - 1)
    return Outcome(n_tokens, mse, accuracy, scene.complexity, split.tokens)


def vector_face(folder: Path, arguments: Arguments, count: int, group_size: int) -> float:
    """Decisions a second through `TaildropVectorEnv`, automatic resets among them."""
    env = TaildropVectorEnv(count, group_size=group_size, table=str(folder), obs="complexity")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, env.process.tokens, (env.process.path_length, count))

    def episode() -> int:
        for row in actions:
            env.step(row)
        return actions.size

    return rate(episode, arguments.seconds, arguments.repeats)


def tensor_face(folder: Path, arguments: Arguments) -> tuple[float, float, float]:
    """Decisions a second of score and reward; the same with drawing the scenes; and of the loop in Python."""
    group, paths, length = arguments.tensor_shape
    process = TaildropProcess(table=str(folder), path_length=length)
    generators = [np.random.default_rng(path) for path in range(paths)]
    scene = process.sample_scene(generators)
    drawn = torch.randint(1, process.tokens + 1, (group, paths, length), generator=torch.Generator().manual_seed(0))

    def score() -> int:
        _ = process.reward(process.engine.score(scene, drawn)).total
        return drawn.numel()

    def draw_and_score() -> int:
        _ = process.reward(process.engine.score(process.sample_scene(generators), drawn)).total
        return drawn.numel()

    few = drawn[:1, :64].contiguous()
    some = scene.at(torch.arange(64), torch.zeros(64, dtype=torch.int64))
    few = few[..., :1].contiguous()
    split = OutcomeTable.load(folder)["train"]
    slow, fast = one_by_one(split, some, few), process.engine.score(some, few)
    if not torch.equal(slow.mse, fast.mse):
        raise RuntimeError("Expected the lookup and the loop to agree, got other errors; this is a bug.")

    def loop() -> int:
        _ = process.reward(one_by_one(split, some, few)).total
        return few.numel()

    seconds, repeats = arguments.seconds, arguments.repeats
    return rate(score, seconds, repeats), rate(draw_and_score, seconds, repeats), rate(loop, seconds, repeats)


def build(arguments: Arguments, folder: Path) -> str:
    """Builds a table; says how long it took."""
    plan = plan_table(tokenizer=arguments.tokenizer, count=arguments.clips, held_out=0, grid=arguments.grid)
    builder = TableBuilder(plan, folder)
    started = time.perf_counter()
    builder.run()
    seconds = time.perf_counter() - started
    decodes = builder.decodes / seconds
    return f"built {arguments.clips} clips, grid {arguments.grid}, in {seconds:.1f} s: {decodes:.0f} decoded clips/s"


def main(arguments: Arguments) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.table or Path(scratch) / "table"
        if arguments.table is None:
            print(build(arguments, folder))
        print(f"{torch.get_num_threads()} threads, {len(OutcomeTable.load(folder)['train'])} clips")
        score, drawn, loop = tensor_face(folder, arguments)
        shape = list(arguments.tensor_shape)
        print(f"tensor face {shape}: {score:,.0f} decisions/s, {score / loop:.0f} times a Python loop ({loop:,.0f})")
        print(f"tensor face {shape} with drawing scenes: {drawn:,.0f} decisions/s")
        for count in arguments.environments:
            for group_size in arguments.group_sizes:
                if count % group_size == 0:
                    found = vector_face(folder, arguments, count, group_size)
                    print(f"vector face, {count} environments, groups of {group_size}: {found:,.0f} decisions/s")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
