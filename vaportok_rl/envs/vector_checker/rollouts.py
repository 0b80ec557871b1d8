"""Recorded rollouts of a vector environment, and their comparison, for the vector checker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
# Larger than any number of environments, which Gymnasium seeds with seed, seed + 1, …
SEED_STRIDE = 100_003


class VectorEnvError(ValueError):
    """A vector environment breaks Gymnasium's contract.

    Attributes:
        check: name of the check that found it; see `vaportok_rl.envs.vector_checker.checker.CHECKS`.
    """

    def __init__(self, check: str, finding: str) -> None:
        super().__init__(f"{check}: {finding}")
        self.check = check


@dataclass(frozen=True)
class Returned:
    """Results of one `reset` or `step`; a reset has only ``obs`` and ``infos``."""

    obs: Any
    infos: dict[str, Any]
    rewards: Any = None
    terminations: Any = None
    truncations: Any = None

    def parts(self) -> dict[str, Any]:
        """All values by name, in the order of Gymnasium's tuple."""
        names = ("obs", "rewards", "terminations", "truncations", "infos")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Moment:
    """One call of a rollout.

    Attributes:
        call: what was called, for messages.
        began: ``bool [N]``; the observation is an episode's first.
        ended: ``bool [N]``; this call terminated or truncated the environment.
        live: the objects as they were returned; a faulty environment may change them later.
        copy: copies made at once.
        actions: the object passed to `step`; None for a reset.
        actions_copy: what it held.
    """

    call: str
    began: Mask
    ended: Mask
    live: Returned
    copy: Returned
    actions: Any = None
    actions_copy: Any = None


Tamper = Callable[[Returned, Any, int], None]


@dataclass
class Trial:
    """The vector environment to check, and its rollouts.

    Attributes:
        envs: the environment.
        seed: of the rollouts.
        steps: in a rollout.
        group_size: members that share their observations.
    """

    envs: VectorEnv[Any, Any, Any]
    seed: int
    steps: int
    group_size: int

    @property
    def mode(self) -> AutoresetMode:
        """The declared autoreset mode; NEXT_STEP if none is declared, as Gymnasium's wrappers assume."""
        mode = self.envs.metadata.get("autoreset_mode")
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode.NEXT_STEP

    @cached_property
    def rollout(self) -> list[Moment]:
        """The first rollout, with `seed`; all others are compared with it."""
        return self.play()

    @property
    def resting(self) -> Mask:
        """A mask of no environments."""
        return np.zeros(self.envs.num_envs, dtype=np.bool_)

    def actions(self, step: int) -> Any:
        """The actions of a step, the same in every rollout; a new object each time."""
        return snapshot(self._sampled[step])

    @cached_property
    def _sampled(self) -> list[Any]:
        # A copy, because sampling would advance the environment's own random stream.
        space = copy.deepcopy(self.envs.action_space)
        space.seed(self.seed)
        return [space.sample() for _ in range(self.steps + 1)]

    def members(self, obs: Any) -> list[Any]:
        """Splits batched observations into those of the N environments."""
        return list(iterate(self.envs.observation_space, obs))

    def begin(self, seed: int | list[int] | None = None) -> Any:
        """First observations after a reset."""
        obs, _ = self.envs.reset(seed=seed)  # type: ignore[arg-type]  # the base class says int, most take lists too
        return snapshot(obs)

    @cached_property
    def starts(self) -> list[Any]:
        """First observations for four seeds."""
        return [self.begin(self.seed + number * SEED_STRIDE) for number in range(4)]

    @property
    def starts_vary(self) -> bool:
        """Whether the seed makes a difference to the first observations."""
        return any(difference(self.starts[0], other, "obs") for other in self.starts[1:])

    def own_parts(self, returned: Returned) -> dict[str, Any]:
        """The parts of a result that must not share memory with the environment."""
        parts = returned.parts()
        if getattr(self.envs.unwrapped, "copy", True) is False:
            # SyncVectorEnv(copy=False) and AsyncVectorEnv(copy=False) share observations on purpose.
            del parts["obs"]
        return parts

    def owned(self, returned: Returned) -> list[tuple[str, NDArray[Any]]]:
        """All arrays of `own_parts`, with their places."""
        return [found for name, part in self.own_parts(returned).items() for found in arrays_in(part, name)]

    def play(
        self, steps: int | None = None, *, actions: Sequence[Any] | None = None, tamper: Tamper | None = None
    ) -> list[Moment]:
        """Resets with `seed` and plays; under DISABLED, environments that ended are reset by mask at once.

        Args:
            steps: how many, `steps` by default.
            actions: one per step; those of `actions` by default.
            tamper: called after each call with what it returned, the actions (None) and the step's number.

        Raises:
            VectorEnvError: a result is so malformed that the rollout cannot go on.
        """
        moments = [self._reset({"seed": self.seed}, ~self.resting)]
        if tamper:
            tamper(moments[-1].live, None, 0)
        for step in range(self.steps if steps is None else steps):
            given = None if actions is None else snapshot(actions[step])
            moments.append(self.step(step, given, moments[-1].ended))
            if tamper:
                tamper(moments[-1].live, moments[-1].actions, step + 1)
            ended = moments[-1].ended
            if self.mode is AutoresetMode.DISABLED and ended.any():
                moments.append(self.reset_masked(ended))
                if tamper:
                    tamper(moments[-1].live, None, step + 1)
        return moments

    def reset_masked(self, mask: Mask, seed: int | None = None) -> Moment:
        """Resets some environments, as under DISABLED."""
        # A new dictionary each time: Gymnasium's own vector environments take the mask out of the caller's.
        options: dict[str, Any] = {"options": {"reset_mask": mask.copy()}}
        return self._reset(options if seed is None else {"seed": seed, **options}, mask)

    def _reset(self, arguments: dict[str, Any], began: Mask) -> Moment:
        shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
        result = self.envs.reset(**arguments)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise VectorEnvError(
                "reset_result",
                f"Expected reset({shown}) to return a tuple (observations, infos dict), got {outline(result)}; end "
                "with `return observations, infos`.",
            )
        live = Returned(*result)
        return Moment(f"reset({shown})", began, self.resting, live, _copied(live))

    def step(self, step: int, actions: Any = None, ended_before: Mask | None = None) -> Moment:
        """Takes one step of a rollout.

        Args:
            step: its number, from 0.
            actions: those of `actions` by default.
            ended_before: ``bool [N]``, environments that ended one step before; none by default.

        Raises:
            VectorEnvError: the result is so malformed that the rollout cannot go on.
        """
        actions = self.actions(step) if actions is None else actions
        actions_copy = snapshot(actions)
        result = self.envs.step(actions)
        if not (isinstance(result, tuple) and len(result) == 5 and isinstance(result[4], dict)):
            raise VectorEnvError(
                "step_result",
                "Expected step() to return a tuple (observations, rewards, terminations, truncations, infos dict), "
                f"got {outline(result)}; end with `return` and these five.",
            )
        obs, rewards, terminations, truncations, infos = result
        for name, flags in (("terminations", terminations), ("truncations", truncations)):
            if not (isinstance(flags, np.ndarray) and flags.dtype == np.bool_ and flags.shape == self.resting.shape):
                raise VectorEnvError(
                    "flags",
                    f"Expected {name} of step {step} as a bool array of shape {self.resting.shape}, got "
                    f"{outline(flags)}; return np.ndarray of dtype np.bool_, one entry for each environment.",
                )
        live = Returned(obs, infos, rewards, terminations, truncations)
        ended = terminations | truncations
        began = {
            AutoresetMode.SAME_STEP: ended.copy(),
            AutoresetMode.NEXT_STEP: self.resting if ended_before is None else ended_before.copy(),
            AutoresetMode.DISABLED: self.resting,
        }[self.mode]
        return Moment(f"step {step}", began, ended, live, _copied(live), actions, actions_copy)


def _copied(returned: Returned) -> Returned:
    return Returned(**{name: snapshot(part) for name, part in returned.parts().items()})


def snapshot(value: Any) -> Any:
    """A copy of all arrays in nested dictionaries, lists, tuples and object arrays; other objects stay the same."""
    if isinstance(value, dict):
        return {name: snapshot(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([snapshot(part) for part in value])
    if isinstance(value, np.ndarray):
        copied = value.copy()
        if value.dtype == object:
            copied[...] = np.frompyfunc(snapshot, 1, 1)(value)
        return copied
    return value


def arrays_in(value: Any, where: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """All arrays in a nested value with their places; of an object array, those inside it too."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from arrays_in(part, f"{where}[{name!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from arrays_in(part, f"{where}[{index}]")
    elif isinstance(value, np.ndarray):
        yield where, value
        if value.dtype == object:
            yield from arrays_in(list(value.flat), where)


def difference(first: Any, second: Any, where: str) -> str | None:
    """The place of the first difference between two nested values, or None; NaN equals NaN."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and first.dtype != object:
        alike = first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")
        return None if alike else where
    if type(first) is not type(second):
        return where
    if isinstance(first, dict):
        if set(first) != set(second):
            return f"{where} (keys {sorted(map(str, set(first) ^ set(second)))} are in one only)"
        pairs = [(f"{where}[{name!r}]", first[name], second[name]) for name in first]
    elif isinstance(first, list | tuple | np.ndarray):
        if len(first) != len(second):
            return where
        pairs = [
            (f"{where}[{index}]", one, other) for index, (one, other) in enumerate(zip(first, second, strict=True))
        ]
    else:
        # Comparing objects may return an array.
        return None if first is second or np.all(first == second) or first != first else where
    return next((found for place, one, other in pairs if (found := difference(one, other, place))), None)


def trajectory_difference(first: Sequence[Moment], second: Sequence[Moment]) -> str | None:
    """The first difference of two rollouts, as a phrase; None if they are equal."""
    for one, other in zip(first, second, strict=False):
        for name, part in one.copy.parts().items():
            mine, theirs = part, other.copy.parts()[name]
            if name == "infos":
                mine, theirs = _repeatable(mine), _repeatable(theirs)
            if found := difference(mine, theirs, name):
                return f"{found} of {one.call} differ"
    return None


def _repeatable(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos without the entries of Gymnasium's RecordEpisodeStatistics, which hold the wall-clock time."""
    return {name: value for name, value in infos.items() if name not in ("episode", "_episode")}


def outline(value: Any) -> str:
    """A value in a few words: its type, and an array's dtype and shape."""
    if isinstance(value, np.ndarray):
        return f"ndarray {value.dtype} {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(outline(part) for part in value)})"
    return f"{type(value).__name__} {value!r:.80}"
