"""What an environment's arguments take from the outcome table it runs on, and what they may not contradict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaportok_rl.envs.table.table import OutcomeTable

_OWN = ("tokenizer", "clips", "clip_seed", "precision")


def with_table_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in what a face's arguments leave to their table.

    Args:
        arguments: with a ``table``.

    Raises:
        FileNotFoundError: there is no such table, or no such tokenizer.
        ValueError: the table is damaged, or was built with another tokenizer, other clips or another precision.
    """
    table = OutcomeTable.load(arguments["table"])
    build = table.manifest.build
    filled = {**{name: getattr(build, name) for name in _OWN}, **arguments, "table": str(arguments["table"])}
    # The same weights may lie under another name; the table's own name may stand for other weights by now.
    if arguments.get("tokenizer", build.tokenizer) == build.tokenizer:
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
