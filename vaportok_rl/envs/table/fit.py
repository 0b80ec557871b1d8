"""Arguments of an environment that runs on an outcome table: defaults from the table, and checks against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaportok_rl.envs.table.table import OutcomeTable

_OWN = ("tokenizer", "clips", "clip_seed", "precision")


def with_table_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fills an environment's missing arguments from its table.

    Args:
        arguments: with ``table``.

    Raises:
        FileNotFoundError: there is no such table, or no such tokenizer.
        ValueError: the table is damaged, or was built with another tokenizer, other clips or another precision.
    """
    table = OutcomeTable.load(arguments["table"])
    build = table.manifest.build
    filled = {**{name: getattr(build, name) for name in _OWN}, **arguments, "table": str(arguments["table"])}
    # Another name may stand for the same weights, and the table's own name may stand for other weights by now.
    if filled["tokenizer"] == build.tokenizer:
        table.check_own_tokenizer()
    else:
        table.check_tokenizer(filled["tokenizer"])
    table.check_clips(filled["clips"], filled["clip_seed"])
    if filled["precision"] == "auto":
        filled["precision"] = build.precision
    if filled["precision"] != build.precision:
        raise ValueError(
            f"Expected precision={build.precision!r}, in which the outcome table {table.folder} was measured, got "
            f"{filled['precision']!r}; leave precision out, or build a table in this one."
        )
    return filled


def check_table_serves(table: OutcomeTable, split: str, observed: Sequence[str], needs: frozenset[str]) -> None:
    """Checks that a table stores the split, the observations and the reward's ``needs`` (`VaporReward.needs`).

    Raises:
        ValueError: something is missing from the table.
    """
    build = table.manifest.build
    table.record(split)
    if "clip" in observed:
        raise ValueError(
            "Expected obs among latents, complexity, codes on an outcome table, which holds no video, got 'clip'; "
            "observe something else, or leave table out."
        )
    if "latents" in observed and build.latents != "full":
        raise ValueError(
            f"Expected obs among complexity, codes on the outcome table {table.folder}, which was built without "
            "latents, got 'latents'; observe something else, or build a table with `--latents full`."
        )
    held = {"bits"} if build.bits else set()
    missing = sorted(needs - held)
    if missing:
        remedy = "build it with `--bits`" if missing == ["bits"] else "leave table out"
        raise ValueError(
            f"Expected a reward of what the outcome table {table.folder} holds, got terms that also need "
            f"{', '.join(missing)}; {remedy}, or drop those terms."
        )
