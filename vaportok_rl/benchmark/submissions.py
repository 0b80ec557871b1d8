"""Submissions: a folder per method with a README, its command and its results; a template, and a check."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from vaportok_rl.benchmark.methods.method import Method
from vaportok_rl.benchmark.methods.registry import METHOD_FILE, METHODS
from vaportok_rl.benchmark.running import RESULTS_FILE, Result, arena_of, read_results, score_of_seed
from vaportok_rl.benchmark.tables import pins
from vaportok_rl.benchmark.tasks import TASKS, Task
from vaportok_rl.runtime.whole_writes import writable_folder

README_FILE = "README.md"
FOLDER = Path("leaderboard")
"""Of all submissions, in the repository."""
SEEDS = 10
"""Runs of each task that a submission needs."""
_COMMAND = "vaportok-rl benchmark run"

TEMPLATE = '''"""A submission: replace the body of `learn` by your optimiser."""

from __future__ import annotations

import torch


def learn(run):
    """Linear softmax policy, trained by the score function with the mean return of a round as its baseline."""
    env = run.arena.env("train")  # a TensorEnv: reset, step, observe and action_masks are pure functions
    torch.manual_seed(run.seed)
    policy = torch.nn.Linear(env.width, env.tokens)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    paths = 128
    per_round = paths * env.path_length
    for number in range(run.decisions // per_round):
        state, log_probs, rewards = env.reset(run.seed * 100_000 + number, paths), [], []
        for _ in range(env.path_length):
            logits = policy(env.observe(state)).masked_fill(~env.action_masks(state), -1e9)
            distribution = torch.distributions.Categorical(logits=logits)
            actions = distribution.sample()
            log_probs.append(distribution.log_prob(actions))
            state, reward = env.step(state, actions)
            rewards.append(reward)
        returns = torch.stack(rewards).sum(0)
        loss = -((returns - returns.mean()) / (returns.std() + 1e-6) * torch.stack(log_probs).sum(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.measure((number + 1) * per_round, policy)  # the learning curve, on the validation scenes
    return policy  # observations [B, F] -> logits [B, K]; scored once on the test scenes
'''


def describe(method: Method) -> str:
    """The README of a method that comes with the package."""
    return (
        f"# {method.name}\n\n{method.does[:1].upper()}{method.does[1:]}.\n\n- Sees: {method.sees}\n- Command: "
        f"`{_COMMAND} {method.name} --seeds 0-9`\n- By: the developers of vaportok-rl\n"
    )


def write_template(folder: Path) -> list[Path]:
    """Writes a submission to begin with: a method that learns a little, and a README to fill in.

    Raises:
        FileExistsError: the folder holds a method already.
        UnwritableError: it is a file, or cannot be written to.
    """
    method, readme = folder / METHOD_FILE, folder / README_FILE
    if method.exists() or readme.exists():
        raise FileExistsError(f"Expected a new folder, got {folder}, which holds a method; choose another name.")
    writable_folder(folder)
    method.write_text(TEMPLATE, encoding="utf-8")
    readme.write_text(
        f"# {folder.name}\n\nWhat it does, in a sentence or two; a link to the paper.\n\n- Sees: window\n"
        f"- Command: `{_COMMAND} {FOLDER}/{folder.name} --seeds 0-9`\n- By: your name\n- Tuning: which settings were "
        "chosen on the validation scenes, and how many were tried\n",
        encoding="utf-8",
    )
    return [method, readme]


def by_seed(results: list[Result]) -> dict[tuple[str, int], list[Result]]:
    """Results by task and seed; several with objectives."""
    found: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        found[result.task, result.seed].append(result)
    return dict(found)


def problems(folder: Path, seeds: int = SEEDS) -> Iterator[str]:
    """What is wrong with a submission; nothing if it can be merged.

    Every score on the test scenes is computed again from the lengths in the file, on the pinned table.

    Args:
        folder: of the method.
        seeds: runs of each task that are needed.
    """
    readme = folder / README_FILE
    if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith("# "):
        yield f"expected {readme} with a heading, found none: begin with `vaportok-rl benchmark template`"
    elif f"{_COMMAND} " not in readme.read_text(encoding="utf-8"):
        yield f"expected the command in {readme} (`{_COMMAND} …`), found none: add it"
    if folder.name not in METHODS and not (folder / METHOD_FILE).is_file():
        yield f"expected {METHOD_FILE} in {folder}, found none: the method must be there to be run again"
    try:
        results = read_results(folder)
    except ValueError as error:
        yield str(error)
        return
    if not results:
        yield f"expected results in {folder / RESULTS_FILE}, found none: run the command"
    counts: dict[str, int] = defaultdict(int)
    for (name, seed), some in by_seed(results).items():
        counts[name] += 1
        yield from (f"{name}, seed {seed}: {fault}" for fault in _faults(folder.resolve().name, name, some))
    for name, count in counts.items():
        if count < seeds:
            yield f"{name}: expected {seeds} seeds, got {count}: run `--seeds 0-{seeds - 1}`"


def _faults(method: str, name: str, some: list[Result]) -> Iterator[str]:
    task = TASKS.get(name)
    if task is None:
        yield f"expected a task among {', '.join(TASKS)}: correct its name"
        return
    first = some[0]
    if first.method != method:
        yield f"expected the method {method!r}, as the folder is called, got {first.method!r}: rename one"
    if not first.belongs_to(task, pins()[task.table]):
        yield "was measured on another version of the task or its table: run it again"
        return
    if sorted(result.part for result in some) != sorted(task.sweep):
        yield f"expected one row for each of {len(task.sweep)} weightings, got {len(some)}: run it again"
        return
    most = task.decisions // len(task.sweep)
    if any(result.decisions > most for result in some):
        yield f"expected at most {most:,} decisions, got {max(result.decisions for result in some):,}: train less"
    for result in some:
        done, scores = zip(*result.points, strict=True)
        if list(done) != sorted({*done}) or done[-1] > result.decisions or not all(map(math.isfinite, scores)):
            yield "expected a learning curve of finite scores, whose decisions rise to those of the run: run it again"
    for result in some:
        fault = _forbidden(task, result)
        if fault:
            yield fault
            return
    if not task.objectives:
        stated, found = float(first.objective_test or "nan"), score_of_seed(task, some)
        if not abs(stated - found) <= 1e-4:
            yield f"expected the score of its lengths, {found:.4f}, got {stated:.4f}: run it again"


def _forbidden(task: Task, result: Result) -> str:
    """What is wrong with a result's lengths, or nothing."""
    arena = arena_of(task)
    env, scenes = arena.env("test"), arena.scenes("test")
    lengths = result.n_tokens
    if lengths.numel() != scenes.numel():
        return f"expected {scenes.numel()} lengths, got {lengths.numel()}: run it again"
    lengths = lengths.view(scenes.shape)
    kept = env.play(scenes, lambda env, state: lengths[:, state.step] - 1)[0].n_tokens
    if not torch.equal(kept, lengths):
        return f"expected lengths of 1…{env.tokens} within the purse, got others: run it again"
    return ""
