"""The vector checker finds each fault with the right check: one correct environment, and many that break one rule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from vaportok_rl.envs.vector_checker.checker import CHECKS, check_vector_env
from vaportok_rl.envs.vector_checker.rollouts import VectorEnvError

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


class Tidy(VectorEnv[Any, Any, Any]):
    """Keeps all rules: a context drawn once per episode, a position moved by the actions, and a clock.

    Episodes take 3, 4, 5, 3, … steps. With groups, members share the context and actions move nothing.
    """

    def __init__(self, mode: AutoresetMode = SAME_STEP, group_size: int = 1, num_envs: int = 4) -> None:
        self.mode, self.group_size, self.num_envs = mode, group_size, num_envs
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = spaces.Box(-100, 100, (3,), np.float32)
        self.single_action_space = spaces.Discrete(5)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.of_group = np.arange(num_envs) // group_size
        self.lengths = 3 + self.of_group % 3
        self.state = np.zeros((num_envs, 3), np.float32)
        self.ended = np.zeros(num_envs, dtype=np.bool_)
        self.generators = [np.random.default_rng() for _ in range(num_envs)]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        self.to_seed = mask
        self.seed_all(seed)
        self.begin(mask)
        self.ended = self.ended & ~mask
        return self.observe(), {}

    def seed_all(self, seed: Any) -> None:
        if type(seed) is int:
            seed = (seed + self.of_group).tolist()
        if seed is not None:
            for env in np.flatnonzero(self.to_seed):
                self.generators[env] = np.random.default_rng(seed[env])

    def begin(self, mask: np.ndarray) -> None:
        self.state = self.state.copy()
        for env in np.flatnonzero(mask):
            self.state[env] = self.generators[env].uniform(-1, 1), 0, 0

    def observe(self) -> np.ndarray:
        return self.state.copy()

    def move(self, actions: np.ndarray, idle: np.ndarray) -> None:
        moved = actions * (self.group_size == 1)
        change = np.stack([np.zeros(self.num_envs), moved, np.ones(self.num_envs)], axis=1)
        self.state = self.state + (change * ~idle[:, None]).astype(np.float32)

    def move_and_pay(self, actions: np.ndarray, idle: np.ndarray) -> np.ndarray:
        self.move(actions, idle)
        return np.where(idle, 0.0, 1.0 + actions)

    def step(self, actions: np.ndarray) -> Any:
        idle = self.ended & (self.mode is NEXT_STEP)
        assert not (self.mode is DISABLED and self.ended.any())
        rewards = self.move_and_pay(actions, idle)
        self.ended = ~idle & (self.state[:, 2] >= self.lengths)
        infos = self.describe(np.ones(self.num_envs, dtype=np.bool_))
        ended = self.ended.copy()
        if self.mode is SAME_STEP and ended.any():
            infos = self.describe(~ended) if not ended.all() else {}
            infos |= {"final_info": self.describe(ended), "_final_info": ended.copy()}
            infos |= {"final_obs": self.last_observations(ended), "_final_obs": ended.copy()}
        self.begin_next(ended if self.mode is SAME_STEP else idle)
        return self.observe(), rewards, ended, np.zeros(self.num_envs, dtype=np.bool_), infos

    def begin_next(self, mask: np.ndarray) -> None:
        self.begin(mask)

    def last_observations(self, ended: np.ndarray) -> Any:
        entries = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(ended):
            entries[env] = self.observe()[env].copy()
        return entries

    def describe(self, present: np.ndarray) -> dict[str, Any]:
        clock = {"clock": np.where(present, self.state[:, 2], 0).astype(np.int64), "_clock": present.copy()}
        energy = np.where(present, self.state[:, 0], 0).astype(np.float32)
        return {"energy": energy, "_energy": present.copy(), "parts": clock, "_parts": present.copy()}


def faulty(**methods: Callable[..., Any]) -> type[Tidy]:
    """A tidy environment with other methods: each gets the environment, its tidy self, and what it is called with."""

    class Faulty(Tidy):
        pass

    def bound(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *given, **named: method(self, getattr(super(Faulty, self), name), *given, **named)

    for name, method in methods.items():
        setattr(Faulty, name, bound(name, method))
    return Faulty


def returning(index: int, change: Callable[[Any], Any]) -> type[Tidy]:
    """An environment whose step returns something else at one place of its tuple."""

    def step(self: Tidy, tidy: Callable[..., Any], actions: np.ndarray) -> Any:
        result = list(tidy(actions))
        result[index] = change(result[index])
        return tuple(result)

    return faulty(step=step)


def with_infos(change: Callable[[dict[str, Any]], Any]) -> type[Tidy]:
    """An environment whose step changes its infos in place."""
    return returning(4, lambda infos: (change(infos), infos)[1])


def seeded(change: Callable[[Any], Any]) -> type[Tidy]:
    """An environment that seeds by other seeds than it is given."""
    return faulty(seed_all=lambda self, tidy, seed: tidy(change(seed)))


def without(*names: str) -> type[Tidy]:
    return with_infos(lambda infos: [infos.pop(name, None) for name in names])


def with_attribute(name: str, value: Any) -> type[Tidy]:
    return faulty(__init__=lambda self, tidy, *given: (tidy(*given), setattr(self, name, value))[0])


class ReusesTheObservation(Tidy):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffer = np.zeros_like(self.state)

    def observe(self) -> np.ndarray:
        self.buffer[:] = self.state
        return self.buffer


class SeedsOnlyOnce(Tidy):
    seeded = False

    def seed_all(self, seed: Any) -> None:
        if not self.seeded:
            super().seed_all(seed)
        self.seeded = self.seeded or seed is not None


class UnseededAutoreset(Tidy):
    def begin_next(self, mask: np.ndarray) -> None:
        seeded, self.generators = self.generators, [np.random.default_rng() for _ in self.generators]
        super().begin_next(mask)
        self.generators = seeded


class ResetLeavesAutoresetPending(Tidy):
    def reset(self, **arguments: Any) -> Any:
        pending = self.ended
        result = super().reset(**arguments)
        self.ended = pending
        return result


class MembersPartAtTheNextEpisode(Tidy):
    def begin_next(self, mask: np.ndarray) -> None:
        super().begin_next(mask)
        self.state[mask, 0] += np.arange(self.num_envs)[mask] / 10


class KeepsTheActions(Tidy):
    kept: np.ndarray | None = None

    def reset(self, **arguments: Any) -> Any:
        self.kept = None
        return super().reset(**arguments)

    def move(self, actions: np.ndarray, idle: np.ndarray) -> None:
        super().move(actions if self.kept is None else self.kept, idle)
        self.kept = actions


class ShowsTheFinalObsAgain(Tidy):
    shown: np.ndarray | None = None

    def begin_next(self, mask: np.ndarray) -> None:
        last = self.observe()
        super().begin_next(mask)
        self.shown = np.where(mask[:, None], last, self.state)

    def step(self, actions: np.ndarray) -> Any:
        _, *rest = super().step(actions)
        return self.shown, *rest


class TakesActionsWhileResetting(Tidy):
    def step(self, actions: np.ndarray) -> Any:
        idle = self.ended
        result = super().step(actions)
        self.state[idle, 1] += actions[idle]
        return self.observe(), *result[1:]


class ResetsNobody(Tidy):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if not options:
            return super().reset(seed=seed)
        self.ended[:] = False
        self.state[options["reset_mask"], 2] = 1  # enough to continue, with everything else unchanged
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return self.state * np.array([1, 1, 0], np.float32)


class ResetsEveryonesClock(Tidy):
    def begin(self, mask: np.ndarray) -> None:
        super().begin(mask)
        if mask.any():
            self.state[:, 2] = 0

    def observe(self) -> np.ndarray:
        return self.state * np.array([1, 1, 0], np.float32)


class SharesOneStream(Tidy):
    """Its dynamics draw from a generator that a reset by mask advances."""

    def begin(self, mask: np.ndarray) -> None:
        super().begin(mask)
        self.generators[-1].uniform()

    def move(self, actions: np.ndarray, idle: np.ndarray) -> None:
        super().move(actions, idle)
        self.state[~idle, 1] += self.generators[-1].uniform()


class ReseedsEveryone(Tidy):
    def seed_all(self, seed: Any) -> None:
        self.to_seed = np.ones_like(self.to_seed)
        super().seed_all(seed)


far = np.frompyfunc(lambda entry: None if entry is None else entry + 1000, 1, 1)
NEVER, ENTROPY = np.zeros(4, dtype=np.bool_), np.random.default_rng()
# Check, fault, environment and mode; SAME_STEP where none is given.
Fault = tuple[str, str, type[Tidy]] | tuple[str, str, type[Tidy], AutoresetMode]
ATTRIBUTES: list[Fault] = [
    ("attributes", "no number of environments", with_attribute("num_envs", None)),
    ("attributes", "a shape for a space", with_attribute("single_observation_space", (3,))),
    ("batched_spaces", "unbatched", with_attribute("observation_space", spaces.Box(-1, 1, (3,)))),
    ("batched_spaces", "too few actions", with_attribute("action_space", spaces.MultiDiscrete([5] * 3))),
    ("autoreset_mode", "missing", with_attribute("metadata", {})),
    ("autoreset_mode", "a string", with_attribute("metadata", {"autoreset_mode": "SameStep"})),
    ("autoreset_mode", "two modes", with_attribute("autoreset_mode", DISABLED)),
]
RESULTS: list[Fault] = [
    ("reset_result", "observations only", faulty(reset=lambda self, tidy, **named: tidy(**named)[0])),
    ("step_result", "four values", faulty(step=lambda self, tidy, actions: tidy(actions)[1:])),
    ("step_result", "infos as a list", returning(4, lambda infos: [infos])),
    ("flags", "integers", returning(2, lambda flags: flags.astype(int))),
    ("flags", "a list", returning(3, lambda flags: flags.tolist()), NEXT_STEP),
    ("flags", "a column", returning(2, lambda flags: flags[:, None]), DISABLED),
    ("observations", "another dtype", returning(0, lambda obs: obs.astype(np.float64))),
    ("observations", "another shape", returning(0, lambda obs: obs[:, :2].copy()), NEXT_STEP),
    ("observations", "out of bounds", returning(0, lambda obs: obs + 1000), DISABLED),
    ("observations", "not a number", returning(0, lambda obs: obs * np.float32("nan"))),
    ("rewards", "a column", returning(1, lambda rewards: rewards[:, None])),
    ("rewards", "integers", returning(1, lambda rewards: rewards.astype(int)), NEXT_STEP),
    ("rewards", "a list", returning(1, lambda rewards: rewards.tolist()), NEXT_STEP),
    ("rewards", "not a number", returning(1, lambda rewards: rewards * np.nan), DISABLED),
    ("rewards", "objects", returning(1, lambda rewards: rewards.astype(object)), DISABLED),
    ("final_obs", "missing", without("final_obs", "_final_obs")),
    ("final_obs", "without its mask", without("_final_obs")),
    ("final_obs", "out of bounds", faulty(last_observations=lambda self, tidy, ended: far(tidy(ended)))),
    ("final_obs", "where nothing ended", faulty(last_observations=lambda self, tidy, ended: tidy(np.ones_like(ended)))),
    ("final_obs", "a batch", faulty(last_observations=lambda self, tidy, ended: self.observe())),
    (
        "final_obs",
        "in another mode",
        with_infos(lambda infos: infos.update(final_obs=np.full(4, 0.0), _final_obs=np.full(4, True))),
        NEXT_STEP,
    ),
    ("final_info", "missing", without("final_info", "_final_info")),
    (
        "final_info",
        "a list",
        with_infos(lambda infos: infos.update(final_info=[None] * 4) if "final_info" in infos else None),
    ),
    ("info_format", "no mask", without("_energy"), NEXT_STEP),
    ("info_format", "no mask of a dict", without("_parts")),
    ("info_format", "integer mask", with_infos(lambda infos: infos.update(_energy=np.ones(4, int))), NEXT_STEP),
    ("info_format", "a list", with_infos(lambda infos: infos.update(energy=[0.0] * 4)), NEXT_STEP),
    ("info_format", "a scalar", with_infos(lambda infos: infos.update(energy=np.array(1.0))), DISABLED),
    ("info_format", "too short", with_infos(lambda infos: infos["parts"].update(clock=np.zeros(3))), DISABLED),
    (
        "info_types",
        "later wider",
        with_infos(lambda infos: infos["parts"]["clock"][0] > 1 and infos.update(energy=infos["energy"].astype(float))),
        NEXT_STEP,
    ),
    (
        "info_keys",
        "sometimes",
        with_infos(
            lambda infos: infos["parts"]["clock"][0] > 1 and infos.update(late=infos["energy"] + 1, _late=~NEVER)
        ),
        NEXT_STEP,
    ),
]
MEMORY: list[Fault] = [
    (
        "actions_untouched",
        "changed",
        faulty(move=lambda self, tidy, actions, idle: tidy(np.add(actions, 1, out=actions), idle)),
    ),
    (
        "actions_untouched",
        "returned",
        faulty(step=lambda self, tidy, a: (*(r := tidy(a))[:4], r[4] | {"actions": a[:], "_actions": ~NEVER})),
    ),
    ("shared_memory", "one buffer", ReusesTheObservation),
    ("shared_memory", "a constant", returning(3, lambda flags: NEVER), DISABLED),
    ("exposed_state", "the state itself", faulty(observe=lambda self, tidy: self.state), NEXT_STEP),
    ("kept_actions", "used a step later", KeepsTheActions, DISABLED),
]
SEEDING: list[Fault] = [
    ("seeded_reset", "ignored", faulty(seed_all=lambda self, tidy, seed: None)),
    ("seeded_reset", "only once", SeedsOnlyOnce, DISABLED),
    (
        "unseeded_reset",
        "fresh entropy",
        faulty(
            seed_all=lambda self, tidy, seed: tidy(ENTROPY.integers(2**31, size=4).tolist() if seed is None else seed)
        ),
    ),
    ("unseeded_reset", "starts over", seeded(lambda seed: seed or 0), NEXT_STEP),
    (
        "seeded_trajectory",
        "unseeded steps",
        faulty(move_and_pay=lambda self, tidy, *given: tidy(*given) * ENTROPY.uniform(1, 2)),
    ),
    ("seeded_trajectory", "unseeded autoreset", UnseededAutoreset),
    ("different_seeds", "all alike", seeded(lambda seed: [seed] * 4 if type(seed) is int else seed)),
    ("seed_list", "ignored", seeded(lambda seed: 0 if type(seed) is list else seed)),
    ("seed_list", "not repeatable", seeded(lambda seed: None if type(seed) is list else seed)),
    (
        "np_random",
        "another each time",
        type("Another", (Tidy,), {"np_random": property(lambda self: np.random.default_rng())}),
    ),
]
AUTORESET: list[Fault] = [
    ("reset_after_end", "still pending", ResetLeavesAutoresetPending, NEXT_STEP),
    ("same_step_obs", "the old observation", ShowsTheFinalObsAgain),
    (
        "next_step_idle",
        "pays",
        faulty(move_and_pay=lambda self, tidy, actions, idle: tidy(actions, idle) + idle),
        NEXT_STEP,
    ),
    ("next_step_obs", "resets at once", faulty(begin_next=lambda self, tidy, mask: self.begin(self.ended)), NEXT_STEP),
    ("next_step_actions", "moves", TakesActionsWhileResetting, NEXT_STEP),
    ("reset_mask", "everyone", faulty(reset=lambda self, tidy, seed=None, options=None: tidy(seed=seed)), DISABLED),
    ("reset_mask", "nobody", ResetsNobody, DISABLED),
    ("reset_mask_state", "everyone's clock", ResetsEveryonesClock, DISABLED),
    ("reset_mask_state", "one stream for all", SharesOneStream, DISABLED),
    ("reset_mask_seed", "everyone", ReseedsEveryone, DISABLED),
]
FAULTS = ATTRIBUTES + RESULTS + MEMORY + SEEDING + AUTORESET


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_the_tidy_environment_passes(mode: AutoresetMode, group_size: int) -> None:
    check_vector_env(Tidy(mode, group_size), steps=24)


@pytest.mark.parametrize(
    ("check", "kind", "mode"),
    [pytest.param(check, kind, *(mode or [SAME_STEP]), id=f"{check}: {title}") for check, title, kind, *mode in FAULTS],
)
def test_each_fault_is_found_for_its_own_reason(check: str, kind: type[Tidy], mode: AutoresetMode) -> None:
    with pytest.raises(VectorEnvError, match=r"^\w+: Expected .*, got .*") as caught:
        check_vector_env(kind(mode), steps=24)
    assert caught.value.check == check


@pytest.mark.parametrize(
    "kind",
    [seeded(lambda seed: [seed + env for env in range(4)] if type(seed) is int else seed), MembersPartAtTheNextEpisode],
)
def test_members_of_a_group_that_see_different_clips(kind: type[Tidy]) -> None:
    with pytest.raises(VectorEnvError, match="draw one scene per group") as caught:
        check_vector_env(kind(SAME_STEP, 2))
    assert caught.value.check == "groups"


def test_a_group_size_that_does_not_divide() -> None:
    with pytest.raises(VectorEnvError, match="Expected group_size to divide num_envs = 4, got 3") as caught:
        check_vector_env(Tidy(), group_size=3)
    assert caught.value.check == "groups"


def test_every_check_has_an_environment_that_fails_it() -> None:
    # Groups have tests of their own above; the end of episodes only warns, which test_checker.py tests.
    assert set(CHECKS) - {fault[0] for fault in FAULTS} == {"groups", "episodes_end"}
