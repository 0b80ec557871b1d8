"""Gymnasium wrappers that change what a path is worth: weights on a schedule, and a scalarisation of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vaportok_rl.envs.process import TaildropProcess

Schedule = Callable[[int], Mapping[str, float]]
Scalarisation = Callable[[dict[str, NDArray[np.float64]]], Any]


def _process_of(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> TaildropProcess:
    process = getattr(env.unwrapped, "process", None)
    if not isinstance(process, TaildropProcess):
        raise ValueError(
            f"Expected a Taildrop environment, got {env.unwrapped}; inside a sync or async vector environment, wrap "
            "each scalar environment instead."
        )
    return process


class _Curriculum:
    """Sets the weights that a schedule has reached."""

    def __init__(self, env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], schedule: Schedule) -> None:
        self.process = _process_of(env)
        if hasattr(env.unwrapped, "reward_space"):
            raise ValueError(
                f"Expected an environment with a scalar reward, got {env.unwrapped}, which pays the terms unweighted; "
                "use vaportok/Taildrop-v0."
            )
        self.schedule = schedule
        self.decisions = 0
        self.apply()

    def apply(self) -> None:
        # A copy: the reward may have been passed in by a user who gave it to another environment as well.
        self.process.reward = self.process.reward.with_weights(self.schedule(self.decisions))


class CurriculumWeights(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Reward weights as a function of the number of decisions so far, on `TaildropEnv`.

    The weights hold from the decision at which the schedule returns them, also in the middle of a path; a path term
    is paid at the last step, with the weight of that step. Only `step` counts decisions: an agent that scores whole
    paths through ``process.engine`` does not move the schedule.

    Args:
        env: the environment.
        schedule: from the number of decisions taken to weights by term; a term that is not named keeps its weight.
            For example ``lambda decisions: {"efficiency": min(1.0, decisions / 10_000)}``.

    Raises:
        ValueError: not a Taildrop environment with a scalar reward, or the schedule's first weights are wrong. Later
            ones are checked when they come into force, in `step`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], schedule: Schedule) -> None:
        RecordConstructorArgs.__init__(self, schedule=schedule)
        gymnasium.Wrapper.__init__(self, env)
        self._curriculum = _Curriculum(env, schedule)

    @property
    def decisions(self) -> int:
        """Decisions taken so far."""
        return self._curriculum.decisions

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """See `TaildropEnv.step`."""
        self._curriculum.apply()
        result = self.env.step(action)
        self._curriculum.decisions += 1
        return result


class VectorCurriculumWeights(VectorWrapper[Any, Any, Any], RecordConstructorArgs):
    """`CurriculumWeights` for `TaildropVectorEnv`; a step counts as ``num_envs`` decisions.

    Args:
        env: the vector environment.
        schedule: see `CurriculumWeights`.

    Raises:
        ValueError: see `CurriculumWeights`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], schedule: Schedule) -> None:
        RecordConstructorArgs.__init__(self, schedule=schedule)
        VectorWrapper.__init__(self, env)
        self._curriculum = _Curriculum(env, schedule)

    @property
    def decisions(self) -> int:
        """Decisions taken so far, by all environments together."""
        return self._curriculum.decisions

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """See `TaildropVectorEnv.step`."""
        self._curriculum.apply()
        result = self.env.step(actions)
        self._curriculum.decisions += self.num_envs
        return result


class _PathTerms:
    """Adds up the reward terms of paths on their way and pays for those that are complete."""

    def __init__(self, process: TaildropProcess, scalarise: Scalarisation, count: int) -> None:
        # `info` reports a clip term in full at every step, a path term once, at the last.
        tried = process.reward.dry_run(process.path_length, process.tokens, process.engine.device)
        self._shares = {name: 1 / process.path_length if value.dim() == 3 else 1.0 for name, value in tried.raw.items()}
        self._sums = {name: np.zeros(count) for name in self._shares}
        self._scalarise = scalarise

    def forget(self, which: NDArray[np.bool_] | slice = slice(None)) -> None:
        for sums in self._sums.values():
            sums[which] = 0

    def pay(self, reported: list[Mapping[str, Any]], finished: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Rewards of one step, from every ``reward_terms`` that its infos hold (zeros for those who are elsewhere)."""
        for name, share in self._shares.items():
            for terms in reported:
                self._sums[name] += share * np.asarray(terms[name], dtype=np.float64)
        rewards = np.zeros(len(finished))
        if finished.any():
            value = np.asarray(self._scalarise({name: sums[finished] for name, sums in self._sums.items()}))
            if value.shape != (finished.sum(),) or not np.isfinite(value).all():
                raise ValueError(
                    f"Expected the scalarisation to return one finite number a path, shape ({finished.sum()},), got "
                    f"{value!r}; compute it elementwise from the terms' arrays."
                )
            rewards[finished] = value
            self.forget(finished)
        return rewards


class LearnedScalarisation(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the weighted sum by any function of a path's reward terms, such as one learnt from preferences.

    The function sees the terms of a whole path (clip terms averaged over its clips, as in `RewardResult.terms`), so it
    need not be linear, and its value is paid at the last step; the steps before pay 0. A linear one is better given
    to `VaporReward` as weights, which pays at every step. The environment's own weights no longer matter.

    Args:
        env: the environment.
        scalarise: from terms by name, ``float64 [N]`` each, one entry a path, to ``[N]`` rewards.

    Raises:
        ValueError: not a Taildrop environment; in `step`: the function did not return N finite numbers.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], scalarise: Scalarisation) -> None:
        RecordConstructorArgs.__init__(self, scalarise=scalarise)
        gymnasium.Wrapper.__init__(self, env)
        self._terms = _PathTerms(_process_of(env), scalarise, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See `TaildropEnv.reset`."""
        self._terms.forget()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """See `TaildropEnv.step`."""
        observation, _, terminated, truncated, info = self.env.step(action)
        rewards = self._terms.pay([info["reward_terms"]], np.array([terminated]))
        return observation, float(rewards[0]), terminated, truncated, info


class VectorLearnedScalarisation(VectorWrapper[Any, Any, Any], RecordConstructorArgs):
    """`LearnedScalarisation` for `TaildropVectorEnv`.

    Args:
        env: the vector environment, in either autoreset mode.
        scalarise: see `LearnedScalarisation`.

    Raises:
        ValueError: see `LearnedScalarisation`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], scalarise: Scalarisation) -> None:
        RecordConstructorArgs.__init__(self, scalarise=scalarise)
        VectorWrapper.__init__(self, env)
        self._terms = _PathTerms(_process_of(env), scalarise, env.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `TaildropVectorEnv.reset`."""
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # Gymnasium forgot lists
        mask = (options or {}).get("reset_mask")
        self._terms.forget(slice(None) if mask is None else mask)
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """See `TaildropVectorEnv.step`."""
        observations, _, terminated, truncated, infos = self.env.step(actions)
        # Under SAME_STEP, what finished paths earned is in `final_info`, with zeros for the others.
        reported = [where["reward_terms"] for where in (infos, infos.get("final_info", {})) if "reward_terms" in where]
        return observations, self._terms.pay(reported, terminated), terminated, truncated, infos
