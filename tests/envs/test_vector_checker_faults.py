"""The vector checker finds each fault for its own reason: one tidy environment, and many that break one rule."""

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
    """Keeps every rule: a context drawn once an episode, a position that the actions move, and a clock.

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
        if isinstance(seed, int):
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


def changed(index: int, change: Callable[[Any], Any]) -> type[Tidy]:
    """An environment whose step returns something else at one place of its tuple."""

    class Changed(Tidy):
        def step(self, actions: np.ndarray) -> Any:
            result = list(super().step(actions))
            result[index] = change(result[index])
            return tuple(result)

    return Changed


def with_infos(change: Callable[[dict[str, Any]], Any]) -> type[Tidy]:
    """An environment whose step changes its infos in place."""

    def apply(infos: dict[str, Any]) -> dict[str, Any]:
        change(infos)
        return infos

    return changed(4, apply)


def with_attribute(name: str, value: Any) -> type[Tidy]:
    class Attributed(Tidy):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            setattr(self, name, value)

    return Attributed


class ResetReturnsObservationsOnly(Tidy):
    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0]


class StepReturnsFour(Tidy):
    def step(self, actions: np.ndarray) -> Any:
        obs, rewards, ended, _, infos = super().step(actions)
        return obs, rewards, ended, infos


class FinalObsOutsideTheSpace(Tidy):
    def last_observations(self, ended: np.ndarray) -> Any:
        entries = super().last_observations(ended)
        for env in np.flatnonzero(ended):
            entries[env] += 1000
        return entries


class FinalObsForAll(Tidy):
    def last_observations(self, ended: np.ndarray) -> Any:
        return super().last_observations(np.ones_like(ended))


class FinalObsIsABatch(Tidy):
    def last_observations(self, ended: np.ndarray) -> Any:
        return self.observe()


class InfoChangesItsType(Tidy):
    def describe(self, present: np.ndarray) -> dict[str, Any]:
        infos = super().describe(present)
        return infos | {"energy": infos["energy"].astype(np.float64 if self.state[0, 2] > 1 else np.float32)}


class InfoComesAndGoes(Tidy):
    def describe(self, present: np.ndarray) -> dict[str, Any]:
        infos = super().describe(present)
        return infos | ({"late": infos["energy"], "_late": present.copy()} if self.state[0, 2] > 1 else {})


class ChangesTheActions(Tidy):
    def move(self, actions: np.ndarray, idle: np.ndarray) -> None:
        actions += 1
        super().move(actions, idle)


class ReturnsTheActions(Tidy):
    def step(self, actions: np.ndarray) -> Any:
        *result, infos = super().step(actions)
        return *result, infos | {"actions": actions[:], "_actions": np.ones(self.num_envs, dtype=np.bool_)}


class ReusesTheObservation(Tidy):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffer = np.zeros_like(self.state)

    def observe(self) -> np.ndarray:
        self.buffer[:] = self.state
        return self.buffer


class ReusesConstantFlags(Tidy):
    never = np.zeros(4, dtype=np.bool_)

    def step(self, actions: np.ndarray) -> Any:
        obs, rewards, ended, _, infos = super().step(actions)
        return obs, rewards, ended, self.never, infos


class IgnoresTheSeed(Tidy):
    def seed_all(self, seed: Any) -> None:
        pass


class SeedsOnlyOnce(Tidy):
    seeded = False

    def seed_all(self, seed: Any) -> None:
        if not self.seeded:
            super().seed_all(seed)
        self.seeded = self.seeded or seed is not None


class ForgetsTheSeed(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all(np.random.SeedSequence().generate_state(self.num_envs).tolist() if seed is None else seed)


class StartsOver(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all(0 if seed is None else seed)


class UnseededSteps(Tidy):
    entropy = np.random.default_rng()

    def move_and_pay(self, actions: np.ndarray, idle: np.ndarray) -> np.ndarray:
        return super().move_and_pay(actions, idle) * self.entropy.uniform(1, 2)


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


class SeedsAllAlike(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all([seed] * self.num_envs if isinstance(seed, int) else seed)


class IgnoresListsOfSeeds(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all(0 if isinstance(seed, list) else seed)


class TakesEntropyForLists(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all(None if isinstance(seed, list) else seed)


class AnotherNpRandom(Tidy):
    @property
    def np_random(self) -> np.random.Generator:
        return np.random.default_rng()


class MembersSeeDifferentClips(Tidy):
    def seed_all(self, seed: Any) -> None:
        super().seed_all([seed + env for env in range(self.num_envs)] if isinstance(seed, int) else seed)


class MembersPartAtTheNextEpisode(Tidy):
    def begin_next(self, mask: np.ndarray) -> None:
        super().begin_next(mask)
        self.state[mask, 0] += np.arange(self.num_envs)[mask] / 10


class ShowsItsState(Tidy):
    def observe(self) -> np.ndarray:
        return self.state


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


class PaysWhileResetting(Tidy):
    def move_and_pay(self, actions: np.ndarray, idle: np.ndarray) -> np.ndarray:
        return super().move_and_pay(actions, idle) + idle


class ResetsAtOnceAndIdles(Tidy):
    def begin_next(self, mask: np.ndarray) -> None:
        self.begin(self.ended)


class TakesActionsWhileResetting(Tidy):
    def step(self, actions: np.ndarray) -> Any:
        idle = self.ended
        result = super().step(actions)
        self.state[idle, 1] += actions[idle]
        return self.observe(), *result[1:]


class ResetsEveryone(Tidy):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


class ResetsNobody(Tidy):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if not options:
            return super().reset(seed=seed)
        self.ended[:] = False
        self.state[options["reset_mask"], 2] = 1  # enough to play on, with everything else as it was
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


def drop(*names: str) -> type[Tidy]:
    return with_infos(lambda infos: [infos.pop(name, None) for name in names])


def floats(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64)


ATTRIBUTES: list[tuple[str, str, type[Tidy], AutoresetMode]] = [
    ("attributes", "no number of environments", with_attribute("num_envs", None), SAME_STEP),
    ("attributes", "a shape for a space", with_attribute("single_observation_space", (3,)), SAME_STEP),
    ("batched_spaces", "unbatched", with_attribute("observation_space", spaces.Box(-1, 1, (3,))), SAME_STEP),
    ("batched_spaces", "too few actions", with_attribute("action_space", spaces.MultiDiscrete([5] * 3)), SAME_STEP),
    ("autoreset_mode", "missing", with_attribute("metadata", {}), SAME_STEP),
    ("autoreset_mode", "a string", with_attribute("metadata", {"autoreset_mode": "SameStep"}), SAME_STEP),
    ("autoreset_mode", "two modes", with_attribute("autoreset_mode", DISABLED), SAME_STEP),
]
RESULTS: list[tuple[str, str, type[Tidy], AutoresetMode]] = [
    ("reset_result", "observations only", ResetReturnsObservationsOnly, SAME_STEP),
    ("step_result", "four values", StepReturnsFour, SAME_STEP),
    ("step_result", "infos as a list", changed(4, lambda infos: [infos]), SAME_STEP),
    ("flags", "integers", changed(2, lambda flags: flags.astype(int)), SAME_STEP),
    ("flags", "a list", changed(3, lambda flags: flags.tolist()), NEXT_STEP),
    ("flags", "a column", changed(2, lambda flags: flags[:, None]), DISABLED),
    ("observations", "another dtype", changed(0, floats), SAME_STEP),
    ("observations", "another shape", changed(0, lambda obs: obs[:, :2].copy()), NEXT_STEP),
    ("observations", "out of bounds", changed(0, lambda obs: obs + 1000), DISABLED),
    ("observations", "not a number", changed(0, lambda obs: obs * np.float32("nan")), SAME_STEP),
    ("rewards", "a column", changed(1, lambda rewards: rewards[:, None]), SAME_STEP),
    ("rewards", "integers", changed(1, lambda rewards: rewards.astype(int)), NEXT_STEP),
    ("rewards", "a list", changed(1, lambda rewards: rewards.tolist()), NEXT_STEP),
    ("rewards", "not a number", changed(1, lambda rewards: rewards * np.nan), DISABLED),
    ("rewards", "objects", changed(1, lambda rewards: rewards.astype(object)), DISABLED),
    ("final_obs", "missing", drop("final_obs", "_final_obs"), SAME_STEP),
    ("final_obs", "without its mask", drop("_final_obs"), SAME_STEP),
    ("final_obs", "out of bounds", FinalObsOutsideTheSpace, SAME_STEP),
    ("final_obs", "where nothing ended", FinalObsForAll, SAME_STEP),
    ("final_obs", "a batch", FinalObsIsABatch, SAME_STEP),
    (
        "final_obs",
        "in another mode",
        with_infos(lambda infos: infos.update(final_obs=np.full(4, 0.0), _final_obs=np.full(4, True))),
        NEXT_STEP,
    ),
    ("final_info", "missing", drop("final_info", "_final_info"), SAME_STEP),
    (
        "final_info",
        "a list",
        with_infos(lambda infos: infos.update(final_info=[None] * 4) if "final_info" in infos else None),
        SAME_STEP,
    ),
    ("info_format", "no mask", drop("_energy"), NEXT_STEP),
    ("info_format", "no mask of a dict", drop("_parts"), SAME_STEP),
    ("info_format", "integer mask", with_infos(lambda infos: infos.update(_energy=np.ones(4, int))), NEXT_STEP),
    ("info_format", "a list", with_infos(lambda infos: infos.update(energy=[0.0] * 4)), NEXT_STEP),
    ("info_format", "a scalar", with_infos(lambda infos: infos.update(energy=np.array(1.0))), DISABLED),
    ("info_format", "too short", with_infos(lambda infos: infos["parts"].update(clock=np.zeros(3))), DISABLED),
    ("info_types", "later wider", InfoChangesItsType, NEXT_STEP),
    ("info_keys", "sometimes", InfoComesAndGoes, NEXT_STEP),
]
MEMORY: list[tuple[str, str, type[Tidy], AutoresetMode]] = [
    ("actions_untouched", "changed", ChangesTheActions, SAME_STEP),
    ("actions_untouched", "returned", ReturnsTheActions, SAME_STEP),
    ("shared_memory", "one buffer", ReusesTheObservation, SAME_STEP),
    ("shared_memory", "a constant", ReusesConstantFlags, DISABLED),
    ("exposed_state", "the state itself", ShowsItsState, NEXT_STEP),
    ("kept_actions", "used a step later", KeepsTheActions, DISABLED),
]
SEEDING: list[tuple[str, str, type[Tidy], AutoresetMode]] = [
    ("seeded_reset", "ignored", IgnoresTheSeed, SAME_STEP),
    ("seeded_reset", "only once", SeedsOnlyOnce, DISABLED),
    ("unseeded_reset", "fresh entropy", ForgetsTheSeed, SAME_STEP),
    ("unseeded_reset", "starts over", StartsOver, NEXT_STEP),
    ("seeded_trajectory", "unseeded steps", UnseededSteps, SAME_STEP),
    ("seeded_trajectory", "unseeded autoreset", UnseededAutoreset, SAME_STEP),
    ("different_seeds", "all alike", SeedsAllAlike, SAME_STEP),
    ("seed_list", "ignored", IgnoresListsOfSeeds, SAME_STEP),
    ("seed_list", "not repeatable", TakesEntropyForLists, SAME_STEP),
    ("np_random", "another each time", AnotherNpRandom, SAME_STEP),
]
AUTORESET: list[tuple[str, str, type[Tidy], AutoresetMode]] = [
    ("reset_after_end", "still pending", ResetLeavesAutoresetPending, NEXT_STEP),
    ("same_step_obs", "the old observation", ShowsTheFinalObsAgain, SAME_STEP),
    ("next_step_idle", "pays", PaysWhileResetting, NEXT_STEP),
    ("next_step_obs", "resets at once", ResetsAtOnceAndIdles, NEXT_STEP),
    ("next_step_actions", "moves", TakesActionsWhileResetting, NEXT_STEP),
    ("reset_mask", "everyone", ResetsEveryone, DISABLED),
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
    [pytest.param(check, kind, mode, id=f"{check}: {title}") for check, title, kind, mode in FAULTS],
)
def test_each_fault_is_found_for_its_own_reason(check: str, kind: type[Tidy], mode: AutoresetMode) -> None:
    with pytest.raises(VectorEnvError, match=r"^\w+: Expected .*, got .*") as caught:
        check_vector_env(kind(mode), steps=24)
    assert caught.value.check == check


@pytest.mark.parametrize("kind", [MembersSeeDifferentClips, MembersPartAtTheNextEpisode])
def test_members_of_a_group_that_see_different_clips(kind: type[Tidy]) -> None:
    with pytest.raises(VectorEnvError, match="draw one scene a group") as caught:
        check_vector_env(kind(SAME_STEP, 2))
    assert caught.value.check == "groups"


def test_a_group_size_that_does_not_divide() -> None:
    with pytest.raises(VectorEnvError, match="Expected group_size to divide num_envs = 4, got 3") as caught:
        check_vector_env(Tidy(), group_size=3)
    assert caught.value.check == "groups"


def test_every_check_has_an_environment_that_fails_it() -> None:
    # Groups have tests of their own above; the end of episodes only warns, which test_vector_checker.py tests.
    assert set(CHECKS) - {fault[0] for fault in FAULTS} == {"groups", "episodes_end"}
