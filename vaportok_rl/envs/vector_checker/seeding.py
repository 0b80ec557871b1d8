"""Checks of seeding, of arrays that the caller changes, and of groups.

Each check is a generator of findings; `check_vector_env` raises the first one.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from vaportok_rl.envs.vector_checker.rollouts import (
    SEED_STRIDE,
    Returned,
    Trial,
    arrays_in,
    difference,
    snapshot,
    trajectory_difference,
)


def seeded_reset(trial: Trial) -> Iterator[str]:
    """`reset` with the same seed always returns the same, after any earlier rollout."""
    first = trial.rollout[:1]
    for again in ("", " once more"):
        if found := trajectory_difference(first, trial.play(0)):
            yield (
                f"Expected reset(seed={trial.seed}){again} to return what the first one did, got another result "
                f"({found}); draw all randomness from generators that every reset(seed=...) seeds again."
            )


def seeded_trajectory(trial: Trial) -> Iterator[str]:
    """The same seed and the same actions give the same trajectory, autoresets included."""
    if found := trajectory_difference(trial.rollout, trial.play()):
        yield (
            f"Expected the same seed and actions to give the same trajectory, got two: {found}; draw the randomness of "
            "steps and autoresets from the seeded generators, and let reset clear all state."
        )


def unseeded_reset(trial: Trial) -> Iterator[str]:
    """`reset` without a seed continues the seeded random stream: it is repeatable, but not the seeded start again."""
    runs = []
    for _ in range(2):
        seeded = trial.begin(trial.seed)
        runs.append([seeded] + [trial.begin() for _ in range(3)])
    if found := difference(runs[0], runs[1], "obs"):
        yield (
            f"Expected reset() after reset(seed={trial.seed}) to continue the seeded random stream, got a different "
            f"{found} each time; do not draw fresh entropy when seed is None."
        )
    if trial.starts_vary and not any(difference(runs[0][0], other, "obs") for other in runs[0][1:]):
        yield (
            "Expected reset() without a seed to begin new episodes, got the seeded start every time; seed the "
            "generators only when a seed is given."
        )


def different_seeds(trial: Trial) -> Iterator[str]:
    """Different seeds give different starts, and so do different environments; constant starts only warn."""
    if not trial.starts_vary:
        warnings.warn(
            f"Expected different seeds to give different first observations, got the same for {trial.envs}; make sure "
            "that its starts are meant to be deterministic.",
            UserWarning,
            stacklevel=3,
        )
        return
    heads = slice(None, None, trial.group_size)
    starts = [trial.members(start)[heads] for start in trial.starts]
    if len(starts[0]) > 1 and not any(difference(row[0], other, "obs") for row in starts for other in row[1:]):
        yield (
            f"Expected reset(seed={trial.seed}) to start the environments differently, got the same observation in "
            "every one; give each environment (or group) its own seed: seed, seed + 1, …"
        )


def seed_list(trial: Trial) -> Iterator[str]:
    """A list of seeds, if the environment accepts one, is repeatable and has an effect."""
    seeds = [trial.seed + SEED_STRIDE + env // trial.group_size for env in range(trial.envs.num_envs)]
    try:
        first = trial.begin(seeds)
    except Exception:
        # Gymnasium's base class promises only an int, and environments refuse a list with various errors.
        return
    trial.begin(trial.seed)
    if found := difference(first, trial.begin(seeds), "obs"):
        yield f"Expected reset(seed={seeds}) to be repeatable, got another {found}; seed environment e with seeds[e]."
    others = [seed + SEED_STRIDE for seed in seeds]
    if trial.starts_vary and not difference(first, trial.begin(others), "obs"):
        yield (
            f"Expected reset(seed={others}) to start other episodes than reset(seed={seeds}), got the same; seed "
            "environment e with seeds[e]."
        )


def _random_states(envs: VectorEnv[Any, Any, Any]) -> list[Any] | None:
    base = envs.unwrapped
    if type(base).np_random is VectorEnv.np_random and base._np_random is None:
        # The base class would create a generator now; this environment keeps its randomness elsewhere.
        return None
    generators = base.np_random
    members = generators if isinstance(generators, tuple | list) else [generators]
    return [generator.bit_generator.state for generator in members]


def np_random(trial: Trial) -> Iterator[str]:
    """``envs.np_random`` is in the same state after every `reset` with the same seed."""
    states = []
    for _ in range(2):
        trial.play(2)
        trial.envs.reset(seed=trial.seed)
        states.append(snapshot(_random_states(trial.envs)))
    if difference(states[0], states[1], "np_random"):
        yield (
            f"Expected envs.np_random in the same state after each reset(seed={trial.seed}), got two; call "
            "super().reset(seed=seed) or override np_random with the generators in use."
        )


def _overwrite(returned: Returned, trial: Trial) -> None:
    for _, array in trial.owned(returned):
        if not array.flags.writeable or array.dtype.kind not in "biuf":
            continue
        if array.dtype == np.bool_:
            np.logical_not(array, out=array)
        else:
            array += np.ones_like(array)


def exposed_state(trial: Trial) -> Iterator[str]:
    """Writing into returned arrays does not affect the environment."""
    advice = "return copies of the arrays that hold the state"
    try:
        moments = trial.play(tamper=lambda returned, _actions, _step: _overwrite(returned, trial))
    except Exception as error:
        yield (
            f"Expected the environment to work while its caller writes into returned arrays, got {error!r}; {advice}."
        )
        return
    if found := trajectory_difference(trial.rollout, moments):
        yield (
            f"Expected the same trajectory when the caller writes into returned arrays, got another: {found}; {advice}."
        )


def kept_actions(trial: Trial) -> Iterator[str]:
    """Reusing one array for all actions does not affect the environment."""

    def reuse(_returned: Returned, actions: Any, step: int) -> None:
        if actions is not None:
            others = arrays_in(trial.actions(step), "actions")
            for (_, array), (_, other) in zip(arrays_in(actions, "actions"), others, strict=True):
                array[...] = other

    if found := trajectory_difference(trial.rollout, trial.play(tamper=reuse)):
        yield (
            f"Expected the same trajectory when the caller reuses the array of actions, got another: {found}; copy the "
            "actions that are needed after step returns."
        )


def groups(trial: Trial) -> Iterator[str]:
    """Members of a group have equal observations at the same step of an episode."""
    count, size = trial.envs.num_envs, trial.group_size
    if size < 1 or count % size:
        yield f"Expected group_size to divide num_envs = {count}, got {size}; make a whole number of groups."
        return
    episodes, elapsed = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for moment in trial.rollout if size > 1 else ():
        # A reset by mask takes no time in the environments outside the mask.
        elapsed = np.where(moment.began, 0, elapsed + (moment.actions is not None))
        episodes += moment.began
        alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for env in range(count):
            alike[env // size, episodes[env], elapsed[env]].append(env)
        obs = trial.members(moment.copy.obs)
        for (group, _, _), (first, *others) in alike.items():
            for other in others:
                if found := difference(obs[first], obs[other], "observation"):
                    yield (
                        f"Expected the members of group {group} to see the same at {moment.call}, got another {found} "
                        f"in environments {first} and {other}; draw one scene per group."
                    )
