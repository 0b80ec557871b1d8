"""``vaportok-rl table``: builds, describes, verifies and gets outcome tables, which replace the network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.envs.table.building import TableBuilder, TableOptions, plan_table
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.runtime.ranks import Processes


@dataclass(frozen=True)
class Build(TableOptions):
    """Measure every length of every clip once, for environments that then run without a network.

    After an interruption the same command continues. Under `torchrun` the shards are divided among the ranks.
    """

    out: Path = field(kw_only=True)
    """Folder of the table: new, empty, or of the same build."""
    clips: tuple[str, ...] = ("procedural",)
    grid: str = "4"

    def run(self, console: Console) -> None:
        """Runs the command."""
        processes = Processes.start("cpu")  # only to agree on which rank holds the folder
        here = os.environ.get("LOCAL_RANK")
        device = f"cuda:{here}" if self.device == "cuda" and here is not None else self.device
        options = {option.name: getattr(self, option.name) for option in fields(TableOptions)}
        clips = self.clips[0] if len(self.clips) == 1 else self.clips
        build = plan_table(**{**options, "clips": clips, "device": device})
        builder = TableBuilder(build, self.out, device=device, processes=processes)
        with progress_bar(console) as progress:
            live = "" if processes.count == 1 else f"process {processes.rank} of {processes.count}"
            task = progress.add_task("decoded clips", total=builder.decodes, live=live)
            table = builder.run(lambda count: progress.advance(task, count))
        if processes.is_main:
            _describe(table, console)


@dataclass(frozen=True)
class Describe:
    """Describe a table."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The table."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        _describe(OutcomeTable.load(self.folder), console)


@dataclass(frozen=True)
class Verify:
    """Compare all files of a table with their hashes; optionally also the tokenizer and the clips."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The table."""
    tokenizer: bool = True
    """Also compare the tokenizer, if it is on this machine."""
    clips: bool = False
    """Also read every clip again."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        table = OutcomeTable.load(self.folder)
        checked = ["every shard"]
        table.verify()
        if self.tokenizer:
            checked += ["the tokenizer"] if table.check_own_tokenizer() else []
        for split in table.splits if self.clips else ():
            source = TableClips(table, split)
            with progress_bar(console) as progress:
                task = progress.add_task(f"{split} clips", total=len(source), live="")
                for index in range(len(source)):
                    source.batch([index])
                    progress.advance(task)
            checked.append(f"the {split} clips")
        console.print(f"{self.folder}: {', '.join(checked)} as the manifest says", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Get:
    """Get a table of the benchmark, verified by its hash; a table that does not match is refused."""

    name: Annotated[str, tyro.conf.Positional]
    """Its name, such as procedural-v1."""
    source: str | None = None
    """Folder, or data set of the Hugging Face hub (`owner/name`), to copy it from if it is not in the package."""
    build: bool = False
    """Build it on this machine instead. On other processors than the pinned table's, its hash may differ."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.benchmark.tables import build_table, fetch_table, find_table, kept_at, verified

        if self.build:
            folder = kept_at(self.name)
            with progress_bar(console) as progress:
                task = progress.add_task("decoded clips", total=None, live="")
                build_table(self.name, folder, lambda count: progress.advance(task, count))
            verified(self.name, folder)
        else:
            folder = find_table(self.name) if self.source is None else fetch_table(self.name, self.source)
        _describe(OutcomeTable.load(folder), console)


@dataclass(frozen=True)
class TableCommand:
    """Build, describe, verify and get outcome tables."""

    command: Annotated[
        Annotated[Build, tyro.conf.subcommand("build")]
        | Annotated[Describe, tyro.conf.subcommand("info")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Get, tyro.conf.subcommand("get")],
        tyro.conf.arg(name=""),
    ]

    def run(self, console: Console) -> None:
        """Runs the command."""
        self.command.run(console)


def _describe(table: OutcomeTable, console: Console) -> None:
    build = table.manifest.build
    shown = Table(title=f"outcome table {table.folder}", title_justify="left", show_header=False)
    for split in table.splits:
        record = table.record(split)
        size = sum(shard.size for shard in record.shards) / 2**20
        files = f"{len(record.shards)} shard{'s' * (len(record.shards) > 1)}"
        shown.add_row(f"{split} clips", f"{record.clips} of {record.available}, {files}, {size:.1f} MiB")
    clips = build.clips if isinstance(build.clips, str) else ", ".join(build.clips)
    shown.add_row("clips", clips)
    shown.add_row("tokenizer", f"{build.tokenizer} (SHA-256 {build.weights[:12]}…), {build.precision}")
    shown.add_row("lengths", f"{len(build.grid)} measured of {table.tokens}")
    error = table.manifest.interpolation
    if error is not None:
        shown.add_row(
            "error between them",
            f"{100 * error['mean_relative']:.2f} % of the mean squared error on average, "
            f"{100 * error['max_relative']:.1f} % at most ({error['clips']} clips × {error['lengths']} lengths)",
        )
    shown.add_row("latents", build.latents)
    shown.add_row("prior's bits", "yes" if build.bits else "no")
    console.print(shown)
    console.print(f'gymnasium.make("vaportok/Taildrop-v0", table="{table.folder}")', highlight=False, soft_wrap=True)
