"""The file of a trained agent: what Stable-Baselines3 saves, and beside it a record of the run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from vaportok_rl.runtime.whole_writes import whole_write

AGENT_FILE = "agent.zip"
RECORD = "run.json"
# The latents of every path at the last step: by far the largest thing in the file, and never used.
_LEFT_OUT = ("_last_obs", "_last_original_obs", "_last_episode_starts")


def save_agent(agent: BaseAlgorithm, file: Path, record: Mapping[str, Any]) -> Path:
    """Saves an agent with the record of its run, whole or not at all.

    Stable-Baselines3's ``load`` reads the file as any other and passes over the record.

    Args:
        agent: any algorithm.
        file: a ``.zip``.
        record: plain data; ``algorithm`` in it names the algorithm as `saved_agents.ALGORITHMS` does.
    """
    content = json.dumps(record)
    with whole_write(file) as scratch:
        agent.save(scratch, exclude=_LEFT_OUT)
        with zipfile.ZipFile(scratch, "a") as archive:
            archive.writestr(RECORD, content)
    return file


def read_record(file: Path) -> dict[str, Any]:
    """The record of an agent's run; empty where the agent was saved without one."""
    with zipfile.ZipFile(file) as archive:
        if RECORD not in archive.namelist():
            return {}
        record: dict[str, Any] = json.loads(archive.read(RECORD))
        return record
