"""Trained agents on the Hugging Face hub: the agent's file with its settings, metrics, pictures, and a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import torch
import yaml
from huggingface_hub import hf_hub_url
from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.agents.agent_file import AGENT_FILE, read_record
from vaportok_rl.agents.lengths.trained import open_agent
from vaportok_rl.runtime.hub import HubOptions, PushOptions, download, front_matter, upload

CONFIG, TABLE, REPLAY = "config.yaml", "table.md", "reconstructions.mp4"
RUN_FILES = (AGENT_FILE, CONFIG, "results.json", TABLE, "table.csv", REPLAY, "*.png")
"""What of a run folder goes to the hub, where it is there. Archives that can hold code never do."""


def push_to_hub(run: str | Path, repo_id: str, **push: Unpack[PushOptions]) -> str:
    """Uploads a run of ``vaportok-rl train`` with a card: the command, the metrics and a replay video.

    Args:
        run: the run folder, or a folder with an ``agent.safetensors``.
        repo_id: ``owner/name``; created if missing.
        push: huggingface_hub's ``private``, ``token``, ``revision`` and ``commit_message``.

    Returns:
        The commit's address.

    Raises:
        FileNotFoundError: there is no agent.
        ValueError: the agent is damaged.
    """
    folder = Path(run).expanduser()
    if not (folder / AGENT_FILE).is_file():
        raise FileNotFoundError(
            f"Expected a run folder with an {AGENT_FILE}, got {folder}; give one that `vaportok-rl train` wrote."
        )
    files = [file for pattern in RUN_FILES for file in sorted(folder.glob(pattern))]
    return upload(folder, repo_id, files, agent_card(folder, repo_id), **push)


def from_pretrained(
    source: str | Path, *, device: torch.device | str = "cpu", tokenizer: str | None = None, **hub: Unpack[HubOptions]
) -> BaseAlgorithm:
    """Loads an agent from the hub or a run folder. No code of the file is run.

    Args:
        source: ``owner/name`` on the hub, or a run folder.
        device: of the policy.
        tokenizer: path of the agent's tokenizer on this machine; that of its training by default.
        hub: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only``.

    Raises:
        FileNotFoundError: it is neither here nor on the hub.
        ValueError: the file is damaged.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        folder = download(str(source), [AGENT_FILE], **hub)
    return open_agent(folder, None, device, tokenizer)


def agent_card(folder: Path, repo_id: str) -> str:
    """The README of an agent's repository, from the files of its run."""
    return "\n\n".join(_parts(folder, repo_id)) + "\n"


def _parts(folder: Path, repo_id: str) -> Iterator[str]:
    record = read_record(folder / AGENT_FILE)
    algorithm, name = record["algorithm"], repo_id.rpartition("/")[2]
    yield front_matter(["reinforcement-learning", "video-tokenization", algorithm])
    yield f"# {name}"
    yield (
        "A policy for the environment `vaportok/Taildrop-v0`: it looks at a video clip's tokens and decides how many "
        f"of them to keep. Trained with {algorithm} over the tokenizer `{record.get('tokenizer', 'not stated')}`"
        + (f" for {record['decisions']:,} decisions." if "decisions" in record else ".")
    )
    yield (
        "## Use\n\n```python\nfrom vaportok_rl.agents.hub import from_pretrained\n\n"
        f'agent = from_pretrained("{repo_id}")\n```\n\nOr as a run folder for the commands:\n\n```sh\n'
        f"vaportok-rl hub get {repo_id} --out runs/{name}\nvaportok-rl evaluate --agent runs/{name}\n```"
    )
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {}
    versions = ", ".join(f"{what} {which}" for what, which in config.get("versions", {}).items() if which)
    if "command" in config:
        yield f"## Training\n\n```sh\n{config['command']}\n```\n\nAll settings: `{CONFIG}`. Made with {versions}."
    inputs = [f"| {what} | `{mark}` |" for what, mark in record.get("inputs", {}).items()]
    if inputs:
        yield "\n".join(["Hashes of what it was trained on:", "", "| input | hash |", "|---|---|", *inputs])
    if (folder / TABLE).is_file():
        yield "## Metrics"
        yield (folder / TABLE).read_text(encoding="utf-8").strip().removeprefix("# ")
    if (folder / REPLAY).is_file():
        yield (
            "## Replay\n\nOriginal, reconstruction from the tokens that it keeps, and their difference:\n\n"
            f'<video controls loop src="{hf_hub_url(repo_id, REPLAY)}"></video>'
        )
