"""``vaportok-rl hub``: agents, outcome tables and tokenizers to and from the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vaportok_rl.agents.agent_file import AGENT_FILE
from vaportok_rl.agents.hub import RUN_FILES, push_to_hub
from vaportok_rl.envs.table.hub import fetch_table
from vaportok_rl.envs.table.manifest import MANIFEST_FILE
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.runtime.hub import CARD_FILE, PushOptions, download
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.files.checkpoints import CONFIG_FILE, WEIGHTS_FILE


@dataclass(frozen=True)
class Push:
    """Upload a run folder with its agent, an outcome table or a tokenizer, with a card, in one commit.

    The token is the one of `hf auth login`, or `HF_TOKEN`.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """What to upload."""
    repo_id: Annotated[str, tyro.conf.Positional]
    """The repository, as owner/name; created if missing."""
    private: bool = False
    """Create it for its owner alone."""
    message: str | None = None
    """Of the commit."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        options: PushOptions = {"private": self.private}
        if self.message is not None:
            options["commit_message"] = self.message
        if (self.folder / MANIFEST_FILE).is_file():
            table = OutcomeTable.load(self.folder)
            table.verify()
            address = table.push_to_hub(self.repo_id, **options)
        elif (self.folder / AGENT_FILE).is_file():
            address = push_to_hub(self.folder, self.repo_id, **options)
        elif (self.folder / WEIGHTS_FILE).is_file():
            address = VaporTok.from_pretrained(self.folder).push_to_hub(self.repo_id, **options)
        else:
            raise FileNotFoundError(
                f"Expected a folder with {AGENT_FILE}, {MANIFEST_FILE} or {WEIGHTS_FILE}, got {self.folder}; give a "
                "run of `vaportok-rl train`, an outcome table or a tokenizer."
            )
        console.print(f"uploaded: {address}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Get:
    """Download a run folder with its agent, an outcome table or a tokenizer."""

    repo_id: Annotated[str, tyro.conf.Positional]
    """The repository, as owner/name."""
    out: Path
    """New folder."""
    table: bool = False
    """It is an outcome table: a data set, not a model."""
    revision: str | None = None
    """Branch, tag or commit; the newest if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise FileExistsError(f"Expected a new folder, got {self.out}, which exists; choose another --out.")
        if self.table:
            OutcomeTable.load(fetch_table(self.repo_id, self.out, revision=self.revision)).verify()
        else:
            files = (*RUN_FILES, CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
            download(self.repo_id, files, folder=self.out, revision=self.revision)
        console.print(f"downloaded to {self.out}", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class HubCommand:
    """Share agents, outcome tables and tokenizers on the Hugging Face hub."""

    command: Annotated[
        Annotated[Push, tyro.conf.subcommand("push")] | Annotated[Get, tyro.conf.subcommand("get")],
        tyro.conf.arg(name=""),
    ]

    def run(self, console: Console) -> None:
        """Runs the command."""
        self.command.run(console)
