"""Rebuilds all computed pages, tables and pictures of README and ``docs/``.

Run in the repository's root: python -m vaportok_rl.experiments.rebuild
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation.feature_networks import STAND_IN, open_feature_network
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.rebuild.publishing import committed, publish, report
from vaportok_rl.experiments.rebuild.running import Rebuild, hours, minutes
from vaportok_rl.experiments.rebuild.steps import COMPARE_WITH, OPTIONS, PRETRAINING, STEPS, Step, fingerprints
from vaportok_rl.runtime.held_folders import hold_run_folder
from vaportok_rl.runtime.markdown import markdown_table

WORK = Path("runs/rebuild")


@dataclass(frozen=True)
class Options:
    """Rebuild all computed pages, tables and pictures of README and docs/, in order.

    After an interruption the same command continues with the unfinished steps. A step runs again if its settings, the
    weights of `nano`, the feature network of its distances or a step it needs have changed; the former results of a
    step that resumes are kept in `NAME.before-1`, `-2`, …. At the end all results are copied to their places, and a
    table lists the metrics that differ from the last commit by more than their 95 % intervals.
    """

    footage: Path | None = None
    """Folder of at least six short films; without it, results on films are not rebuilt."""
    compare_with: Path | None = None
    """Folder of other weights, to show the same clips under both."""
    pretraining: Path | None = None
    """Run folder of the `pretrain` that made the weights, for its curves."""
    only: tuple[str, ...] = ()
    """Steps by name or pattern (`ablation-*`), with the steps they need; all by default."""
    again: bool = False
    """Run the commands of the chosen steps again even if they are done. Studies keep their finished runs and write
    their pages again; delete a step's folder in runs/rebuild to repeat the runs."""
    jobs: int = 2
    """Steps run in parallel, each on one thread."""
    list: bool = False
    """List the steps and run nothing."""


def chosen(patterns: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """The steps that match, without those they need; all if there are no patterns.

    Raises:
        ValueError: a pattern matches no step.
    """
    for pattern in patterns:
        if not fnmatch.filter([step.name for step in steps], pattern):
            raise ValueError(f"Expected a step, got {pattern!r}; --list shows them.")
    return [step for step in steps if not patterns or any(fnmatch.fnmatch(step.name, one) for one in patterns)]


def with_needs(asked_for: Sequence[Step], steps: Sequence[Step] = STEPS) -> list[Step]:
    """These steps and all steps they need, in the order of ``steps``."""
    names = {step.name for step in asked_for}
    for step in reversed(steps):
        names |= step.needs if step.name in names else set()
    return [step for step in steps if step.name in names]


def files_identity(folder: Path) -> str:
    """A hash of the names and sizes of a folder's files.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder, got {folder}; correct the path.")
    listed = sorted(
        (str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()
    )
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def listing(steps: Sequence[Step]) -> str:
    """The steps as a table."""
    rows = [
        (
            step.name,
            f"{step.minutes:g}" if step.command else "",
            ", ".join([*step.files.values(), *(f"{part.page} ({part.name})" for part in step.passages)]),
        )
        for step in steps
    ]
    times = [f"{hours(minutes(steps, jobs))} with --jobs {jobs}" for jobs in (1, 2)]
    return f"{markdown_table(('step', 'minutes', 'makes'), rows, names=1)}\n\nAll: about {', '.join(times)}."


def main(options: Options, console: Console | None = None) -> int:
    """Runs the command; returns how many steps failed."""
    console = console or plain_console()
    mine = chosen(options.only)
    steps = with_needs(mine)
    if options.list:
        console.print(listing(steps), highlight=False, soft_wrap=True)
        return 0
    root = Path.cwd()
    if not (root / "docs").is_dir():
        raise FileNotFoundError(f"Expected the repository's root, got {root}, which has no docs/; go there.")
    given = {name: getattr(options, name).expanduser() for name in OPTIONS if getattr(options, name) is not None}
    identities = {"weights": weights_digest("nano"), "judge": open_feature_network(STAND_IN).sha256}
    for name, folder in given.items():
        weights = {COMPARE_WITH: folder, PRETRAINING: folder / "model"}.get(name)
        identities[name] = files_identity(folder) if weights is None else weights_digest(str(weights))
    WORK.mkdir(parents=True, exist_ok=True)
    hold_run_folder(WORK)
    rebuild = Rebuild(
        steps=steps,
        work=WORK,
        root=root,
        places={name: str(folder) for name, folder in given.items()},
        marks=fingerprints(steps, identities),
        console=console,
        jobs=options.jobs,
    )
    if options.again:
        rebuild.reopen(mine)
    try:
        made = rebuild.run()
    except KeyboardInterrupt:
        console.print("interrupted; the same command continues", style="yellow")
        return 130
    files = {target for step in made for target in step.files.values()}
    before = committed(root, sorted(files | {passage.page for step in made for passage in step.passages}))
    names = {str(path): name.upper() for name, folder in given.items() for path in (folder.resolve(), folder)}
    written = publish(made, WORK, root, names)
    times = [target for step in made if step.times for target in step.files.values()]
    console.print(report(before, root, written, times)[0], highlight=False, soft_wrap=True)
    for name, why in rebuild.left_out.items():
        console.print(f"- {name}: {why}; the present content is kept", highlight=False, soft_wrap=True)
    return sum(why.startswith("failed") for why in rebuild.left_out.values())


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Options, prog="python -m vaportok_rl.experiments.rebuild")))
    except (ValueError, OSError) as error:
        plain_console(stderr=True).print(str(error), soft_wrap=True)
        sys.exit(2)
