"""Registers the environments with Gymnasium, by entry-point strings so that nothing heavy is imported."""

from __future__ import annotations

import gymnasium

TAILDROP_ID = "vaportok/Taildrop-v0"
MO_TAILDROP_ID = "vaportok/MO-Taildrop-v0"
TASKS = ("procedural-v1", "budget-v1", "stream-v1", "pareto-v1")
"""The benchmark's tasks, with ids `vaportok-benchmark/NAME`; `pareto-v1` has a reward vector."""


def register_environments() -> None:
    """Registers every environment id of this package, once."""
    if TAILDROP_ID not in gymnasium.registry:
        gymnasium.register(
            TAILDROP_ID,
            entry_point="vaportok_rl.envs.taildrop_env:TaildropEnv",
            vector_entry_point="vaportok_rl.envs.vector_env:TaildropVectorEnv",
        )
    if MO_TAILDROP_ID not in gymnasium.registry:
        gymnasium.register(
            MO_TAILDROP_ID,
            entry_point="vaportok_rl.envs.multi_objective:MOTaildropEnv",
            vector_entry_point="vaportok_rl.envs.multi_objective:MOTaildropVectorEnv",
            # Gymnasium's passive checker warns about every reward that is not a scalar.
            disable_env_checker=True,
        )
    for task in TASKS:
        name = f"vaportok-benchmark/{task}"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="vaportok_rl.benchmark.environment:TaskEnv",
                kwargs={"task": task},
                disable_env_checker=task == "pareto-v1",
            )
