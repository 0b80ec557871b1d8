"""``vaportok-rl sweep``: any settings of ``train``, varied over variants, a grid or by Optuna, over seeds.

``ablate-rewards`` and ``sweep-weights`` are sweeps of the reward, with the source's tables and figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.runs.training import TrainSettings
from vaportok_rl.experiments.runs.world_settings import RewardSettings
from vaportok_rl.runtime.machine import processor_name

if TYPE_CHECKING:
    from vaportok_rl.experiments.sweeps.running import Row, Worker

# Training and held-out clips of the tables that a study builds for itself, and the decisions of a quick run.
_CLIPS, _QUICK_CLIPS, _QUICK_DECISIONS = (1024, 256), (256, 96), 10_240


@dataclass(frozen=True)
class Sweep:
    """Train all variants of a sweep's TOML file on all seeds, and compare them.

    Writes one CSV (one row per variant and seed), one Markdown table with intervals, and two plots. The same command
    resumes an interrupted sweep. Start it several times, on one machine or on a shared disk, to divide the runs among
    workers. See docs/sweeps.md.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The sweep: `seeds`, `[train]`, `[distances]`, and `[variants]`, `[grid]` or `[optuna]`."""
    out: Path | None = None
    """Folder of the runs and results, new or of the same sweep; `sweeps/<file's name>` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.sweeps.plan import read_plan
        from vaportok_rl.experiments.sweeps.report import PAGE_FILE, write_report
        from vaportok_rl.experiments.sweeps.running import Worker

        out = self.out or Path("sweeps") / self.file.stem
        plan = read_plan(self.file)
        worker = Worker(plan, out)
        rows = _work(console, worker, PAGE_FILE)
        if rows is not None:
            _show(console, out, write_report(out, rows, f"Sweep {self.file.stem}", *_notes(worker)))


def _work(console: Console, worker: Worker, page: str) -> list[Row] | None:
    """Runs a sweep with a progress bar; None, and a line that says so, while other workers still train runs."""
    from vaportok_rl.experiments.sweeps.searching import search

    plan = worker.plan
    with progress_bar(console) as progress:
        task = progress.add_task("runs", total=None, live="")

        def on_run(variant: str, seed: int) -> Callable[[int, Mapping[str, float]], None]:
            total = plan.settings({}, seed).decisions
            progress.reset(task, total=total, description=f"{variant}, seed {seed}")
            return lambda decisions, live: progress.update(
                task, completed=min(decisions, total), live=f"tokens {live['tokens']:.1f}"
            )

        worker.on_run = on_run
        rows = worker.work() if plan.search is None else search(worker)
    if rows is None:
        console.print(
            f"other workers still train runs of {worker.out}; the last one to finish writes {page}.",
            highlight=False,
            soft_wrap=True,
        )
    return rows


def _notes(worker: Worker) -> list[str]:
    """Clips and feature network of each distance that the runs measured."""
    return [f"{metric[0]}{metric[1:].upper()}: {note}" for metric, note in worker.notes.items()]


def _show(console: Console, out: Path, written: Sequence[Path]) -> None:
    """Prints the page among the written files without title and pictures, and the files."""
    page = next(path for path in written if path.suffix == ".md").read_text(encoding="utf-8").strip()
    shown = [part for part in page.split("\n\n")[1:] if not part.startswith("![")]
    console.print("\n\n".join(shown), markup=False, highlight=False, soft_wrap=True)
    tell_written(console, out, written)


@dataclass(frozen=True)
class _RewardStudy(TrainSettings):
    reward: RewardSettings = field(default_factory=lambda: RewardSettings(preset="paper"))
    """The reward of all terms."""
    seed: tyro.conf.SuppressFixed[int] = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each variant per seed; all runs are compared on the same held-out clips."""
    network: str = "stand-in"
    """Feature network of rFVD and gFVD, as `distance` takes it."""
    generator: str | None = None
    """Run folder of `generator train`, for gFVD: it writes as many tokens as each variant keeps, so one serves all
    variants. Train it with `--lengths fixed:K`."""
    quick: bool = False
    """Try the command: one seed, 10,240 decisions, few clips."""
    out: Path | None = None
    """Folder of the runs and results, new or of the same study; `sweeps/<command>` if not given."""

    def _prepared(self, name: str, console: Console) -> tuple[TrainSettings, tuple[int, ...], Path]:
        """Settings with outcome tables, seeds, and the folder."""
        from vaportok_rl.experiments.generation.length_distances import DistanceSettings

        given = {part.name: getattr(self, part.name) for part in fields(TrainSettings)}
        settings, seeds, out = TrainSettings(**given), self.seeds, self.out or Path("sweeps") / name
        if self.quick:
            scenes = max(1, _QUICK_CLIPS[1] // (settings.path_length or 8))
            few, seeds = min(settings.decisions, _QUICK_DECISIONS), seeds[:1]
            settings = replace(settings, decisions=few, held_out_scenes=min(settings.held_out_scenes, scenes))
            out = self.out or out.with_name(f"{name}-quick")
        settings.check()
        DistanceSettings(self.network, self.generator).identity()  # a wrong name is found before tables are built
        return (settings if settings.table is not None else self._with_tables(settings, out, console)), seeds, out

    def _with_tables(self, settings: TrainSettings, out: Path, console: Console) -> TrainSettings:
        """The settings on outcome tables in the folder; they are built, or what is there is continued."""
        from vaportok_rl.envs.settings import TaildropSettings
        from vaportok_rl.envs.table.building import TableBuilder, plan_table

        chosen = TaildropSettings(**settings.environment("train"))
        counts, grids = (_QUICK_CLIPS, ("8", "8")) if self.quick else (_CLIPS, ("4", "all"))
        options = {name: getattr(chosen, name) for name in ("tokenizer", "clips", "clip_seed", "precision", "device")}
        found = {"train": settings.table, "test": settings.held_out_table}
        for place, split in enumerate(found):
            if found[split] is not None:
                continue
            sizes = [count if row == place else 0 for row, count in enumerate(counts)]
            build = plan_table(**options, count=sizes[0], held_out=sizes[1], grid=grids[place])
            builder = TableBuilder(build, out / f"table-{split}", device=chosen.device)
            with progress_bar(console) as progress:
                task = progress.add_task(f"decoded clips, {split}", total=builder.decodes, live="")
                builder.run(partial(progress.advance, task))
            found[split] = str(builder.folder)
        return replace(settings, table=found["train"], held_out_table=found["test"])

    def _study(
        self, name: str, variants: Mapping[str, Mapping[str, Any]], page: str, console: Console
    ) -> tuple[TrainSettings, Worker, tuple[str, ...]] | None:
        """Trains the variants.

        Returns:
            The settings, the worker, and the notes of the page; None while other workers still train runs.
        """
        from vaportok_rl.experiments.generation.length_distances import DistanceSettings
        from vaportok_rl.experiments.sweeps.plan import SweepPlan
        from vaportok_rl.experiments.sweeps.running import Worker

        settings, seeds, out = self._prepared(name, console)
        plan = SweepPlan.of(settings, variants, seeds, DistanceSettings(self.network, self.generator))
        worker = Worker(plan, out)
        if _work(console, worker, page) is None:
            return None
        notes = [
            *(["**Quick**: few decisions and clips, one seed; this only tries the command."] if self.quick else []),
            f"`vaportok-rl {name}`, reward `{self.reward.preset}`; {settings.algo}, {settings.decisions:,} decisions "
            f"per run, seeds {', '.join(map(str, plan.seeds))}; most probable lengths.",
            *_notes(worker),
            f"Training: {worker.compute.describe()}; {processor_name()}.",
        ]
        return settings, worker, tuple(notes)


@dataclass(frozen=True)
class AblateRewards(_RewardStudy):
    """Leave each term of the reward out in turn (the source's Table 1).

    Trains a policy under the reward and under the reward without each of its five terms, and compares the most probable
    lengths on held-out clips: tokens, rFVD, PSNR, gFVD, MSE and the prior's accuracy, beside the source's. Writes
    `ablation.csv` (one row per variant and seed) and `ablation.md`, which also states each inequality of the source as
    held or not held. The same command resumes; start it several times, with `--table`, to divide the runs.
    """

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.sweeps.ablation import PAGE_FILE, VARIANTS, ablation_frame, write_ablation

        if self.reward.scalarise is not None:
            raise ValueError(
                f"Expected a weighted sum, of which a term can be left out, got --reward.scalarise "
                f"{self.reward.scalarise}; leave it out."
            )
        done = self._study("ablate-rewards", VARIANTS, PAGE_FILE, console)
        if done is not None:
            settings, worker, notes = done
            frame = ablation_frame([run["row"] for run in worker.results()], settings)
            title = f"Each term of the reward `{self.reward.preset}` left out"
            _show(console, worker.out, write_ablation(worker.out, frame, title, *notes))


@dataclass(frozen=True)
class SweepWeights(_RewardStudy):
    """Raise the weights of reconstruction and generation together (the source's Figure 3).

    Writes each unweighted reward term over training as a picture, the final values with intervals as a table, and
    whether each step raises both terms and lowers efficiency. The same command resumes; start it several times, with
    `--table`, to divide the runs.
    """

    weights: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Of both terms; the others keep the preset's."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.envs.rewards.reward import build_reward
        from vaportok_rl.experiments.sweeps.weights import PAGE_FILE, weight_variants, write_weights

        variants = weight_variants(self.weights, build_reward(asdict(self.reward)))
        done = self._study("sweep-weights", variants, PAGE_FILE, console)
        if done is not None:
            _, worker, notes = done
            _show(console, worker.out, write_weights(worker.out, worker.results(), *notes))
