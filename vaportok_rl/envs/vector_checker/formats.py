"""Checks of the values that a vector environment returns: spaces, types, infos and memory.

Each check is a generator of findings; `check_vector_env` raises the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from vaportok_rl.envs.vector_checker.rollouts import Trial, arrays_in, difference, outline

SPACES = ("single_observation_space", "single_action_space", "observation_space", "action_space")


def attributes(trial: Trial) -> Iterator[str]:
    """``num_envs`` and the four spaces are there and of the right type."""
    envs = trial.envs
    count = getattr(envs, "num_envs", None)
    if type(count) is not int or count < 1:
        yield f"Expected num_envs as a positive int, got {outline(count)}; set it in __init__."
    for name in SPACES:
        space = getattr(envs, name, None)
        if not isinstance(space, spaces.Space):
            yield f"Expected {name} as a gymnasium Space, got {outline(space)}; set it in __init__."


def batched_spaces(trial: Trial) -> Iterator[str]:
    """``observation_space`` and ``action_space`` are the batched single spaces."""
    for kind in ("observation", "action"):
        single, batched = getattr(trial.envs, f"single_{kind}_space"), getattr(trial.envs, f"{kind}_space")
        wanted = batch_space(single, trial.envs.num_envs)
        if batched != wanted:
            yield (
                f"Expected {kind}_space to be batch_space(single_{kind}_space, {trial.envs.num_envs}) = {wanted}, got "
                f"{batched}; build it with gymnasium.vector.utils.batch_space, or skip this check if the environments' "
                "spaces differ on purpose."
            )


def autoreset_mode(trial: Trial) -> Iterator[str]:
    """``metadata["autoreset_mode"]`` is an ``AutoresetMode``, and an attribute of that name agrees with it."""
    metadata = getattr(trial.envs, "metadata", None)
    mode = metadata.get("autoreset_mode") if isinstance(metadata, dict) else None
    if not isinstance(mode, AutoresetMode):
        yield (
            f"Expected metadata['autoreset_mode'] as a gymnasium.vector.AutoresetMode, got {mode!r}; put the member of "
            "the enumeration there, not its value, so that agents know when episodes begin."
        )
    attribute = getattr(trial.envs.unwrapped, "autoreset_mode", mode)
    if attribute != mode:
        yield (
            f"Expected the attribute autoreset_mode to equal metadata['autoreset_mode'] = {mode}, got {attribute!r}; "
            "some libraries read the one and some the other, set both."
        )


def misfit(space: spaces.Space[Any], value: Any, where: str) -> str | None:
    """Why a value is not in a space, naming the part; None if it is."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = isinstance(space, spaces.Dict)
        inner: dict[Any, Any] = dict(
            space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        )
        if not isinstance(value, dict if named else tuple) or set(value if named else range(len(value))) != set(inner):
            got = f"keys {list(value)}" if named and isinstance(value, dict) else outline(value)
            wanted = f"dict with the keys {list(inner)}" if named else f"tuple of {len(inner)}"
            return f"Expected {where} as a {wanted}, got {got}; return them all."
        parts = [(part, value[name], f"{where}[{name!r}]") for name, part in inner.items()]
        return next((found for each in parts if (found := misfit(*each))), None)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        if not isinstance(value, np.ndarray) or value.shape != space.shape or value.dtype != space.dtype:
            return (
                f"Expected {where} as ndarray {space.dtype} {space.shape}, got {outline(value)}; return what the space "
                "declares or correct the space."
            )
        if not space.contains(value):
            return (
                f"Expected {where} inside {space!r:.200}, got values {value.min()}…{value.max()}; keep to the bounds "
                "or widen the space."
            )
        return None
    if not space.contains(value):
        return f"Expected {where} in {space!r:.200}, got {outline(value)}; correct the value or the space."
    return None


def observations(trial: Trial) -> Iterator[str]:
    """All observations are in ``observation_space``, of exactly its shapes and dtypes."""
    for moment in trial.rollout:
        if found := misfit(trial.envs.observation_space, moment.copy.obs, f"the observation of {moment.call}"):
            yield found


def rewards(trial: Trial) -> Iterator[str]:
    """Rewards are finite floating-point arrays ``[N]``; ``[N, …]`` where the environment has a ``reward_space``."""
    # Multi-objective environments (MO-Gymnasium) declare the space of one environment's reward vector.
    space = getattr(trial.envs.unwrapped, "reward_space", None)
    shape = (trial.envs.num_envs, *(space.shape if isinstance(space, spaces.Box) else ()))
    for moment in trial.rollout:
        if moment.actions is None:
            continue
        reward = moment.copy.rewards
        if not isinstance(reward, np.ndarray) or reward.shape != shape or reward.dtype.kind != "f":
            yield (
                f"Expected the rewards of {moment.call} as a floating-point ndarray {shape}, got {outline(reward)}; "
                "return one float for each environment."
            )
        elif not np.isfinite(reward).all():
            yield (
                f"Expected finite rewards from {moment.call}, got {reward}; find the division or logarithm that "
                "produced it."
            )


def _info_findings(infos: dict[str, Any], count: int, where: str, masks_required: bool) -> Iterator[str]:
    # A key with an underscore is the mask of the key without it, if there is one.
    keys = [key for key in infos if not (key.startswith("_") and key[1:] in infos)]
    for key in keys:
        value, mask = infos[key], infos.get(f"_{key}")
        if isinstance(value, dict):
            # Gymnasium's own wrappers leave the masks out of nested dictionaries, whose own mask covers them.
            masked = any(f"_{name}" in value for name in value)
            yield from _info_findings(value, count, f"{where}[{key!r}]", masked)
        elif not isinstance(value, np.ndarray) or value.shape[:1] != (count,):
            yield (
                f"Expected {where}[{key!r}] as an ndarray with first axis {count} or a dict of such, got "
                f"{outline(value)}; give one entry for each environment, zero where it is absent."
            )
        if mask is None and not masks_required:
            continue
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (count,):
            yield (
                f"Expected the mask {where}['_{key}'] as a bool array of shape ({count},), got {outline(mask)}; say "
                f"which environments {key!r} is from."
            )


def info_format(trial: Trial) -> Iterator[str]:
    """Infos are in Gymnasium's vector format: arrays ``[N, …]`` by key, each with a ``_key`` mask, nested in dicts."""
    for moment in trial.rollout:
        yield from _info_findings(moment.copy.infos, trial.envs.num_envs, f"infos of {moment.call}", True)


def _info_types(infos: dict[str, Any]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Dtype and shape of one environment's entry, by place; of objects, nothing but that they are."""
    return {
        where: (value.dtype, value.shape[1:])
        for name in infos
        for where, value in arrays_in({name: infos[name]}, "infos")
        if not name.endswith("final_obs")
    }


def info_types(trial: Trial) -> Iterator[str]:
    """An info keeps its dtype and shape from call to call."""
    known: dict[str, tuple[str, np.dtype[Any], tuple[int, ...]]] = {}
    for moment in trial.rollout:
        for where, (dtype, shape) in _info_types(moment.copy.infos).items():
            call, *before = known.setdefault(where, (moment.call, dtype, shape))
            if before != [dtype, shape]:
                yield (
                    f"Expected {where} to keep the type {before[0]} {before[1]} it had in {call}, got {dtype} {shape} "
                    f"in {moment.call}; convert to one dtype and shape before returning it."
                )


def info_keys(trial: Trial) -> Iterator[str]:
    """Steps at which no episode begins or ends all return the same info keys."""
    first: tuple[str, set[str]] | None = None
    for moment in trial.rollout:
        if moment.actions is None or moment.ended.any() or moment.began.any():
            continue
        keys = set(_info_types(moment.copy.infos))
        first = first or (moment.call, keys)
        if keys != first[1]:
            yield (
                f"Expected the info keys of {first[0]} in {moment.call} too, where no episode begins or ends, got "
                f"{sorted(keys ^ first[1])} in one only; return every key at every step and say with the mask where "
                "it holds."
            )


def actions_untouched(trial: Trial) -> Iterator[str]:
    """`step` leaves the actions as they are and returns no view of them."""
    for moment in trial.rollout:
        if found := difference(moment.actions_copy, moment.actions, "actions"):
            yield (
                f"Expected {moment.call} to leave the actions passed to it as they were, got {found} changed; copy "
                "before changing them."
            )
        for where, array in trial.owned(moment.live):
            if any(np.shares_memory(array, given) for _, given in arrays_in(moment.actions, "actions")):
                yield (f"Expected {where} of {moment.call} in new memory, got a view of the actions; return a copy.")


def shared_memory(trial: Trial) -> Iterator[str]:
    """Returned arrays are neither changed by a later call nor returned again by the next one."""
    moments = trial.rollout
    for moment in moments:
        for name, part in trial.own_parts(moment.copy).items():
            if found := difference(part, moment.live.parts()[name], name):
                yield (
                    f"Expected what {moment.call} returned to stay as it was, got {found} changed by a later call; "
                    "return copies of internal buffers."
                )
    for earlier, later in pairwise(moments):
        for (place, other), (where, array) in product(trial.owned(earlier.live), trial.owned(later.live)):
            if array.dtype != object != other.dtype and np.shares_memory(array, other):
                yield (
                    f"Expected {where} of {later.call} in fresh memory, got memory shared with {place} of "
                    f"{earlier.call}; return copies of internal buffers."
                )
