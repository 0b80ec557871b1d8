"""Outcome tables as data sets of the Hugging Face hub, with a card."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Unpack

from vaportok_rl.envs.table.manifest import MANIFEST_FILE, TableManifest
from vaportok_rl.runtime.hub import HubOptions, PushOptions, download, front_matter, upload
from vaportok_rl.runtime.markdown import markdown_table

KIND = "dataset"


def push_table(folder: Path, manifest: TableManifest, repo_id: str, **push: Unpack[PushOptions]) -> str:
    """Uploads a table's manifest and shards with a card; see `OutcomeTable.push_to_hub`."""
    shards = [folder / shard.file for record in manifest.splits.values() for shard in record.shards]
    return upload(folder, repo_id, [folder / MANIFEST_FILE, *shards], table_card(manifest, repo_id), KIND, **push)


def fetch_table(repo_id: str, folder: Path | None = None, **hub: Unpack[HubOptions]) -> Path:
    """Downloads a table; its hashes are checked when it is read.

    Raises:
        FileNotFoundError: it cannot be reached.
    """
    return download(repo_id, [MANIFEST_FILE, "*.safetensors"], KIND, folder, **hub)


def table_card(manifest: TableManifest, repo_id: str) -> str:
    """The README of a table's repository."""
    build = manifest.build
    clips = [build.clips] if isinstance(build.clips, str) else list(build.clips)
    command = ["vaportok-rl", "table", "build", "--tokenizer", build.tokenizer, "--clips", *clips]
    command += ["--count", str(build.splits.get("train", 0)), "--held-out", str(build.splits.get("test", 0))]
    command += ["--grid", build.grid_step, "--latents", build.latents, *(["--bits"] if build.bits else [])]
    rows = [
        [split, f"{record.clips:,}", f"{sum(shard.size for shard in record.shards) / 2**20:.1f}", record.sha256[:16]]
        for split, record in manifest.splits.items()
    ]
    name = repo_id.rpartition("/")[2]
    error = manifest.interpolation
    between = ""
    if error is not None:
        between = f" Between them errors are interpolated, off by {100 * error['mean_relative']:.2f} % on average."
    return f"""{front_matter(["reinforcement-learning", "video-tokenization", "outcome-table"])}

# {name}

An outcome table for the environment `vaportok/Taildrop-v0`: the squared error and the prior's hits of every clip at
every number of tokens, so that the environment needs no network. Measured at {len(build.grid)} of
{build.config.tokens} lengths.{between}

## Use

```python
import gymnasium as gym
from vaportok_rl.envs import OutcomeTable

table = OutcomeTable.from_pretrained("{repo_id}")
env = gym.make("vaportok/Taildrop-v0", table=str(table.folder))
```

## Content

{markdown_table(["split", "clips", "MiB", "hash of the clips"], rows)}

Every file's hash is in `{MANIFEST_FILE}` and is checked on reading. The weights of the tokenizer
`{build.tokenizer}` have the SHA-256 `{build.weights[:16]}…`. The same table is built by

```sh
{shlex.join(command)} --out {name}
```
"""
