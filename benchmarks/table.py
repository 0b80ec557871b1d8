"""The environment on an outcome table: decisions per second by interface and size, and the time to build it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import seconds, table
from vaportok_rl.envs import Outcome, TaildropProcess, TaildropVectorEnv, TensorEnv
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.envs.table.table import OutcomeTable, TableSplit

GRID = 4
ENVIRONMENTS = (1, 8, 64, 512, 4096)
GROUP_SIZES = (1, 8)
# Environments of the pure functions.
PURE = 65_536
# Group size G, scenes P and path length L of the tensor face.
TENSOR_SHAPE = (8, 512, 8)


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        clips: of the table that is built.
        environments: numbers of environments.
        seconds: least time a measurement.
        repeats: measurements; the median counts.
        pure: environments of the pure functions.
    """

    clips: int = 1000
    environments: tuple[int, ...] = ENVIRONMENTS
    seconds: float = 1.0
    repeats: int = 3
    pure: int = PURE


QUICK = Effort(clips=32, environments=(1, 64), seconds=0.1, repeats=1, pure=1024)


def rate(run: Callable[[], int], effort: Effort) -> float:
    """Median of how many a second, where each run returns how many it did."""
    run()
    rates = []
    for _ in range(effort.repeats):
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < effort.seconds:
            done += run()
        rates.append(done / (time.perf_counter() - started))
    return statistics.median(rates)


def one_by_one(split: TableSplit, scene: Scene, n_tokens: torch.Tensor) -> Outcome:
    """The lookup as a Python loop over decisions, for comparison."""
    mse, accuracy = torch.empty(n_tokens.shape), torch.empty(n_tokens.shape)
    for place in np.ndindex(*n_tokens.shape):
        row, n = int(scene.indices[place[1:]]), int(n_tokens[place])
        mse[place] = float(split.mse[row, n - 1])
        accuracy[place] = int(split.hits[row, n - 1]) / max(1, n - 1)
    return Outcome(scene, n_tokens, mse, accuracy)


def vector_face(folder: Path, effort: Effort, count: int, group_size: int) -> float:
    """Decisions a second through `TaildropVectorEnv`, automatic resets among them."""
    env = TaildropVectorEnv(count, group_size=group_size, table=str(folder), obs="complexity")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, env.process.tokens, (env.process.path_length, count))

    def episode() -> int:
        for row in actions:
            env.step(row)
        return actions.size

    return rate(episode, effort)


def tensor_face(folder: Path, effort: Effort) -> tuple[float, float, float]:
    """Decisions a second of score and reward; the same with drawing the scenes; and of the loop in Python."""
    group, paths, length = TENSOR_SHAPE
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

    return rate(score, effort), rate(draw_and_score, effort), rate(loop, effort)


def pure_face(folder: Path, effort: Effort) -> tuple[float, float]:
    """Decisions a second through `TensorEnv.step`, default reward, resets included; the same with observations."""
    env = TensorEnv(TaildropProcess(table=str(folder), obs="complexity"))
    drawn = torch.randint(env.tokens, (env.path_length, effort.pure), generator=torch.Generator().manual_seed(0))
    keys = iter(range(1_000_000))

    def episode(observed: bool) -> int:
        state = env.reset(next(keys), effort.pure)
        for actions in drawn:
            if observed:
                env.observe(state)
            state, _ = env.step(state, actions)
        return drawn.numel()

    return rate(lambda: episode(False), effort), rate(lambda: episode(True), effort)


def build(effort: Effort, folder: Path) -> str:
    """Builds a table; says how long it took."""
    plan = plan_table(count=effort.clips, held_out=0, grid=str(GRID))
    builder = TableBuilder(plan, folder)
    taken = seconds(builder.run)
    return (
        f"Built from {effort.clips:,} procedural clips at step {GRID} on nano in **{taken:.0f} s** (target: 1,000 in "
        f"600 s), {builder.decodes / taken:.0f} decoded clips/s; interpolated errors are off by "
        f"{100 * mean_interpolation_error(folder):.1f} % on average."
    )


def mean_interpolation_error(folder: Path) -> float:
    """What the manifest says of the lengths between the grid's, relative to their error."""
    manifest = json.loads((folder / "manifest.json").read_text())
    error: float = manifest["interpolation"]["mean_relative"]
    return error


def section(quick: bool) -> str:
    """The page's part about outcome tables."""
    effort = QUICK if quick else Effort()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "table"
        built = build(effort, folder)
        score, drawn, loop = tensor_face(folder, effort)
        pure, observed = pure_face(folder, effort)
        rows = []
        for count in effort.environments:
            rates = [
                f"{vector_face(folder, effort, count, group):,.0f}" if count % group == 0 else ""
                for group in GROUP_SIZES
            ]
            rows.append([f"{count:,}", *rates])
    group, paths, length = TENSOR_SHAPE
    head = ["environments", *(f"groups of {size}, decisions/s" for size in GROUP_SIZES)]
    return (
        f"## The environment on an outcome table\n\n{built}\n\nTensor face, {group} paths through each of {paths} "
        f"scenes of {length} clips: **{score:,.0f} decisions/s** scored and rewarded (target 1,000,000), "
        f"{score / loop:.0f}× a Python loop over the same table ({loop:,.0f}); with drawing the scenes "
        f"{drawn:,.0f}.\n\n"
        f"Pure functions (`TensorEnv`), {effort.pure:,} environments, default reward, resets included: **{pure:,.0f} "
        f"decisions/s** (target 5,000,000); with the complexity observation {observed:,.0f}.\n\n"
        "Gymnasium's vector face, complexity observation, resets included (target 200,000 decisions/s):\n\n"
        + table(head, rows)
    )
