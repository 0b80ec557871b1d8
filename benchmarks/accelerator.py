"""Everything worth knowing of an accelerator, in at most eight minutes: checks, the benchmark page, a training.

Run in the repository's root: ``python -m benchmarks.accelerator``. ``--device cpu --tiny`` tries the script itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine import TARGET_GROUP, TARGET_SHARE, engine_run
from benchmarks.timing import interleaved, seconds, table
from benchmarks.worlds import in_precision, large_world, random_clips, random_lengths
from vaportok_rl.agents import GRPO
from vaportok_rl.cli.main import main as vaportok_rl
from vaportok_rl.envs import ScoringEngine, TaildropVecEnv, shared_world
from vaportok_rl.envs.scoring.literal import literal_scores
from vaportok_rl.runtime.machine import processor_name

LAST_BEGIN = 300.0
"""Seconds after which no part begins, so that the whole takes eight minutes at most; what is left out is said."""
DEVICE_TESTS = ("tests/agents/test_device_cleanliness.py", "tests/tokenizer/test_lengths.py")
FAILED = "**no**"
# Rows of the matrix product that is the yardstick, and its repeats.
ROWS, REPEATS = 16_384, 20


@dataclass(frozen=True)
class Arguments:
    """Check a device, measure it and train on it."""

    device: str = "cuda"
    """torch device."""
    tiny: bool = False
    """Seconds on any machine: `nano` in place of the paper's geometry, few rounds, no tests of the suite."""
    tokenizer: str = "nano"
    """The world that GRPO trains on, and with --tiny also the one that is measured."""
    out: Path = Path("runs/accelerator")
    """New folder, of the page (accelerator.md) and of the training run."""


@contextmanager
def peak(device: torch.device) -> Iterator[Callable[[], str]]:
    """The most memory that tensors take in the block, in GiB; only CUDA counts it."""
    counted = device.type == "cuda"
    if counted:
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB" if counted else "not counted"


def product_rate(device: torch.device, rows: int, width: int) -> float:
    """Floating-point operations per second of ``torch.mm`` in bfloat16, [rows × width] by [width × 4 width]."""
    left = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
    right = torch.randn(width, 4 * width, device=device, dtype=torch.bfloat16)

    def several() -> None:
        for _ in range(REPEATS):
            torch.mm(left, right)

    return REPEATS * 8 * rows * width**2 / interleaved({"mm": several}, 3)["mm"]


def checks(arguments: Arguments) -> str:
    """Whether the device computes what the CPU and the literal method compute, and twice the same."""
    here = shared_world(arguments.tokenizer, precision="float32")
    there = shared_world(arguments.tokenizer, arguments.device, "float32")
    clips, tokens = random_clips(here, 2, 4), here.config.tokens
    lengths = random_lengths((4, 2, 4), TARGET_SHARE * tokens, tokens)
    expected = engine_run(ScoringEngine(here), clips, lengths)
    engine, moved = ScoringEngine(there), (clips.to(there.device), lengths.to(there.device))
    found, again = engine_run(engine, *moved), engine_run(engine, *moved)
    literal, _ = literal_scores(there, *moved)
    codes = (found.codes.cpu() != expected.codes).float().mean().item()
    measured = (
        ("share of codes other than the CPU's", codes, 0.01),
        ("error, relative to the CPU's (median)", _relative(found.mse.cpu(), expected.mse), 0.001),
        ("error, relative to the literal method's (median)", _relative(found.mse.cpu(), literal), 0.001),
        ("errors that differ between two calls", int((found.mse != again.mse).sum()), 0),
        ("weights that differ between two trainings", _training_differs(arguments), 0),
    )
    rows = [[name, f"{value:.2g}", f"{most:g}", "yes" if value <= most else FAILED] for name, value, most in measured]
    if not arguments.tiny:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *DEVICE_TESTS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout.strip().splitlines()[-1].strip("= ")
        rows.append([f"`pytest {' '.join(DEVICE_TESTS)}`", said, "", FAILED if done.returncode else "yes"])
    return f"## Checks\n\n{table(['', 'found', 'at most', 'as it should be'], rows)}"


def _relative(values: torch.Tensor, expected: torch.Tensor) -> float:
    return ((values - expected).abs() / expected).median().item()


def _training_differs(arguments: Arguments) -> int:
    one, two = (dict(_agent(arguments, 8, rounds=1).policy.state_dict()) for _ in range(2))
    return sum(int((one[name] != two[name]).sum()) for name in one)


def _agent(arguments: Arguments, environments: int, rounds: int) -> GRPO:
    env = TaildropVecEnv(environments, group_size=8, tokenizer=arguments.tokenizer, device=arguments.device)
    policy = {"tokenizer": arguments.tokenizer}
    agent = GRPO("TaildropPolicy", env, seed=0, device=arguments.device, policy_kwargs=policy)
    return agent.learn(rounds * environments * env.vector_env.process.path_length)


def engine(arguments: Arguments) -> str:
    """Engine against the literal method at the paper's geometry, and the share of the matrix-product rate."""
    device = torch.device(arguments.device)
    made = shared_world(arguments.tokenizer) if arguments.tiny else large_world(False)
    world = in_precision(made, "bfloat16").to(device)
    scorer, tokens = ScoringEngine(world), world.config.tokens
    rows = []
    for clips_at_once in (1,) if arguments.tiny else (1, 8, 32):
        clips = random_clips(world, 1, clips_at_once).to(device)
        lengths = random_lengths((TARGET_GROUP, 1, clips_at_once), TARGET_SHARE * tokens, tokens).to(device)
        with peak(device) as memory:
            runs = {
                "literal": lambda clips=clips, lengths=lengths: literal_scores(world, clips[:, :1], lengths[:1, :, :1]),
                "engine": lambda clips=clips, lengths=lengths: engine_run(scorer, clips, lengths),
            }
            taken = interleaved(runs, 1 if arguments.tiny else 3)
            used = memory()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            runs["engine"]()
        reached = counter.get_total_flops() / taken["engine"]
        full = product_rate(device, 64 if arguments.tiny else ROWS, world.config.width)
        rows.append(
            [
                str(clips_at_once),
                f"{1e3 * TARGET_GROUP * clips_at_once * taken['literal']:.0f} ms",
                f"{1e3 * taken['engine']:.0f} ms",
                f"**{TARGET_GROUP * clips_at_once * taken['literal'] / taken['engine']:.1f}×**",
                f"{reached / 1e12:.2f}",
                f"{full / 1e12:.2f}",
                f"{reached / full:.0%}",
                used,
            ]
        )
    head = ["clips", "literal", "engine", "faster", "engine, TFLOP/s", "`torch.mm`", "of it", "peak memory"]
    name = arguments.tokenizer if arguments.tiny else "`vaportok-b` geometry, random weights"
    return (
        f"## Engine against the literal method\n\n{name}, G = {TARGET_GROUP}, mean length {TARGET_SHARE:g} K, "
        "bfloat16. The literal method is timed on one path of one clip and multiplied.\n\n" + table(head, rows)
    )


def rounds(arguments: Arguments) -> str:
    """GRPO's rounds per second on new clips."""
    device = torch.device(arguments.device)
    rows = []
    for environments in (16,) if arguments.tiny else (128, 512):
        with peak(device) as memory:
            agent = _agent(arguments, environments, rounds=1)
            count = 1 if arguments.tiny else 10
            decisions = count * environments * agent.vector_env.process.path_length
            spent = seconds(lambda: agent.learn(decisions, reset_num_timesteps=False))  # noqa: B023
            rows.append([str(environments), f"{count / spent:.2f}", f"{decisions / spent:.0f}", memory()])
    head = ["environments, groups of 8", "rounds/s", "decisions/s", "peak memory"]
    return f"## GRPO\n\nOn {arguments.tokenizer}, every round on new clips.\n\n{table(head, rows)}"


def training(arguments: Arguments) -> str:
    """A training by the command, with its scoreboard."""
    run = arguments.out / "train"
    words = ["--device", arguments.device, "--tokenizer", arguments.tokenizer, "--out", str(run)]
    if arguments.tiny:
        words += ["--decisions", "64", "--scenes", "2", "--held-out-scenes", "2", "--path-length", "2", "--pool", "8"]
    spent = seconds(lambda: vaportok_rl(["train", *words]))
    board = (run / "table.md").read_text(encoding="utf-8").strip().removeprefix("# ")
    return f"## A training\n\n`vaportok-rl train {' '.join(words)}` took {spent:.0f} s.\n\n{board}"


PARTS = (checks, engine, rounds, training)


def main(arguments: Annotated[Arguments, tyro.conf.arg(name="")]) -> None:
    """Checks a device, measures it, trains on it, and writes the page.

    Args:
        arguments: see `Arguments`.
    """
    started = time.perf_counter()
    arguments.out.mkdir(parents=True)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    sections = [
        f"# An accelerator\n\nWritten by `python -m benchmarks.accelerator` on {name}, torch {torch.__version__}."
    ]
    for part in PARTS:
        spent = time.perf_counter() - started
        late = f"## {part.__name__.capitalize()}\n\nLeft out: {spent:.0f} s had passed."
        sections.append(part(arguments) if part is PARTS[0] or spent < LAST_BEGIN else late)
        print(f"{sections[-1]}\n\n({time.perf_counter() - started:.0f} s)\n", flush=True)
    (arguments.out / "accelerator.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    if FAILED in sections[1]:
        raise SystemExit(f"Expected {arguments.device} to compute what the CPU does, got otherwise; see Checks above.")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.accelerator")
