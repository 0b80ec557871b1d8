"""Hashes of a run's inputs, which detect that a name stands for other clips, weights or another reward by now."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaportok_rl.envs import TaildropProcess, VaporReward
from vaportok_rl.envs.table.shards import is_local, weights_digest
from vaportok_rl.envs.table.table import shared_table
from vaportok_rl.runtime.messages import warn_user

REWARD, WEIGHTS, TABLE = "reward", "weights", "table"


def input_hashes(process: TaildropProcess) -> dict[str, str]:
    """Hashes of the clips, weights, reward and outcome table of a process, 16 hexadecimal digits each."""
    settings = process.settings
    found = {REWARD: reward_hash(process.reward)}
    if settings.table is None:
        clips, found[WEIGHTS] = process.source.identity, weights_digest(settings.tokenizer)
    else:
        manifest = shared_table(settings.table, settings.device).manifest
        clips, found[WEIGHTS] = manifest.splits[settings.split].sha256, manifest.build.weights
        found[TABLE] = _digest(manifest.to_json().decode())
    return {name: value[:16] for name, value in {f"{settings.split} clips": clips, **found}.items()}


def reward_hash(reward: VaporReward) -> str:
    """A hash of a reward's constants and weights, and of the files of its custom terms."""
    described = reward.describe()
    custom = [*described["terms"].values(), *described["pixel_terms"].values(), described["scalarise"] or ""]
    files = {}
    for module in sorted({name.partition(":")[0] for name in custom}):
        file = getattr(sys.modules.get(module), "__file__", None)
        files[module] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None
    return _digest([described, files])[:16]


def check_inputs(begun: Mapping[str, str], now: Mapping[str, str], what: str, accepted: bool) -> None:
    """Compares an agent's training inputs with the current ones.

    Args:
        begun: `input_hashes` of the training; missing entries are not compared.
        now: `input_hashes` now.
        what: the agent or run, for messages.
        accepted: warn about differences instead of raising.

    Raises:
        ValueError: there are differences that were not accepted.

    Warns:
        UserWarning: there are accepted differences.
    """
    changed = [
        f"{name} ({begun[name]} then, {now[name]} now)" for name in now if name in begun and begun[name] != now[name]
    ]
    if not changed:
        return
    if not accepted:
        raise ValueError(
            f"Expected the inputs that {what} was trained on, got other {', '.join(changed)}; name the same "
            "--tokenizer, --clips or --table and --reward, or accept the difference: --accept-differences."
        )
    warn_user(f"{what} was trained on other {', '.join(changed)}; accepted.")


def warn_if_renamed(record: Mapping[str, Any], what: str) -> None:
    """Warns if the tokenizer in an agent's record has other weights by now.

    Args:
        record: with ``tokenizer`` and ``inputs``; missing entries are not compared.
        what: the agent, for messages.

    Warns:
        UserWarning: the weights have changed.
    """
    name, begun = record.get("tokenizer"), record.get("inputs", {}).get(WEIGHTS)
    if name is not None and begun is not None and is_local(name):
        now = weights_digest(name)[:16]
        if now != begun:
            warn_user(f"{what} was trained on {name}, where there are other weights by now ({begun} then, {now} now).")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
