"""What an outcome table cannot serve: refused before an environment is made of it."""

from __future__ import annotations

from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.envs.settings import TaildropSettings
from vaportok_rl.envs.table.table import OutcomeTable


def check_table_serves(table: OutcomeTable, settings: TaildropSettings, reward: VaporReward) -> None:
    """Compares what an environment asks for with what the table holds.

    Raises:
        ValueError: the table has no such split, or lacks what is observed, drawn or measured.
    """
    build = table.manifest.build
    table.record(settings.split)
    if "clip" in settings.observed:
        raise ValueError(
            "Expected obs among latents, complexity, codes on an outcome table, which holds no video, got 'clip'; "
            "observe something else, or leave table out."
        )
    if "latents" in settings.observed and build.latents != "full":
        raise ValueError(
            f"Expected obs among complexity, codes on the outcome table {table.folder}, which was built with latents="
            f"{build.latents!r}, got 'latents'; observe something else, or build a table with `--latents full`."
        )
    held = {"bits"} if build.bits else set()
    missing = sorted(reward.needs - held)
    if missing:
        remedy = "build it with `--bits`" if missing == ["bits"] else "leave table out"
        raise ValueError(
            f"Expected a reward of what the outcome table {table.folder} holds, got terms that also need "
            f"{', '.join(missing)}; {remedy}, or drop those terms."
        )
