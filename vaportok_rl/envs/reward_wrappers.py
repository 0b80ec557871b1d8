"""The reward wrappers of version 0.1, kept for compatibility.

They now change the environment's reward, so GRPO, outcome tables and evaluation use it too. In new code, pass
``reward={"weights": {"efficiency": "0:3@1000:5000"}}`` or ``reward={"scalarise": function}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaportok_rl.envs.process import TaildropProcess

Env = TypeVar("Env", bound=Any)


def CurriculumWeights(env: Env, schedule: Callable[[int], Mapping[str, float]]) -> Env:  # noqa: N802
    """Weights as a function of the decisions taken; see `VaporReward`.

    Args:
        env: a taildrop environment, scalar or vector; it is changed and returned.
        schedule: from the number of decisions to weights by term, always of the same terms.

    Raises:
        ValueError: not a taildrop environment, or the schedule's weights are wrong.
    """
    process = _process_of(env)
    process.reward = process.reward.with_weights({name: partial(_entry, schedule, name) for name in schedule(0)})
    return env


def LearnedScalarisation(env: Env, scalarise: Callable[[dict[str, Any]], Any]) -> Env:  # noqa: N802
    """A function of a path's terms in place of the weighted sum; see `VaporReward`.

    Args:
        env: a taildrop environment, scalar or vector; it is changed and returned.
        scalarise: from terms by name, NumPy arrays ``[N]``, to ``[N]`` rewards.

    Raises:
        ValueError: not a taildrop environment.
    """
    process = _process_of(env)

    def of_tensors(terms: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(terms.values()))
        arrays = {name: value.flatten().double().cpu().numpy() for name, value in terms.items()}
        return torch.as_tensor(scalarise(arrays), dtype=torch.float32, device=first.device).view(first.shape)

    made = replace(process.reward, weights={}, scalarise=of_tensors)
    made.dry_run(process.path_length, process.tokens, process.engine.device)
    process.reward = made
    return env


VectorCurriculumWeights, VectorLearnedScalarisation = CurriculumWeights, LearnedScalarisation


def _entry(schedule: Callable[[int], Mapping[str, float]], name: str, decisions: int) -> float:
    return schedule(decisions)[name]


def _process_of(env: Any) -> TaildropProcess:
    process = getattr(env.unwrapped, "process", None)
    if not isinstance(process, TaildropProcess):
        raise ValueError(
            f"Expected a Taildrop environment, got {env.unwrapped}; inside a sync or async vector environment, change "
            "the reward of each scalar environment instead."
        )
    return process
