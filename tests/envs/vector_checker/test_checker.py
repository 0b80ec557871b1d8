"""The vector checker accepts Gymnasium's environments and ours; see test_faults.py too."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from vaportok_rl.envs.vector_checker.checker import check_vector_env
from vaportok_rl.envs.vector_checker.rollouts import VectorEnvError

ID = "vaportok/Taildrop-v0"


class Corridor(gymnasium.Env[Any, Any]):
    """Walks on until a length drawn at reset; nested observations and, if asked, a deterministic start."""

    def __init__(self, longest: int = 6, start: int | None = None) -> None:
        self.observation_space = spaces.Dict(
            {
                "place": spaces.Box(-10, 10, (2,), np.float64),
                "signs": spaces.Tuple([spaces.Discrete(200), spaces.MultiBinary(3)]),
            }
        )
        self.action_space = spaces.Dict({"stride": spaces.Box(0, 1, (1,)), "turn": spaces.Discrete(2)})
        self.longest, self.start = longest, start

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.clock = 0
        self.length = self.np_random.integers(3, self.longest)
        self.place = self.np_random.uniform(-1, 1, 2) if self.start is None else np.full(2, float(self.start))
        return self._look(), {"length": np.array(self.length)}

    def step(self, action: Any) -> Any:
        self.clock += 1
        self.place = self.place + action["stride"] * (1 - 2 * action["turn"]) / 10
        ended = bool(self.clock >= self.length)
        return self._look(), float(self.place[0]), ended, False, {"length": np.array(self.length)}

    def _look(self) -> Any:
        return {"place": self.place.copy(), "signs": (self.clock, (self.place[:1] > np.arange(3)).astype(np.int8))}


@pytest.fixture
def checked() -> Any:
    """Checks an environment and closes it."""

    def check(make: Callable[[], VectorEnv[Any, Any, Any]], **arguments: Any) -> None:
        envs = make()
        try:
            check_vector_env(envs, **arguments)
        finally:
            envs.close()

    return check


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_gymnasiums_cart_pole(kind: str, mode: AutoresetMode, checked: Any) -> None:
    arguments = {"num_envs": 3, "vectorization_mode": kind, "vector_kwargs": {"autoreset_mode": mode}}
    checked(lambda: gymnasium.make_vec("CartPole-v1", **arguments))


def test_gymnasiums_own_vector_entry_point(checked: Any) -> None:
    checked(lambda: gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point"))


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
def test_observations_of_tuples_of_integers(mode: AutoresetMode, checked: Any) -> None:
    vector = {"autoreset_mode": mode}
    checked(lambda: gymnasium.make_vec("Blackjack-v1", num_envs=3, vectorization_mode="sync", vector_kwargs=vector))


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
def test_nested_observations_and_actions(mode: AutoresetMode, checked: Any) -> None:
    checked(lambda: SyncVectorEnv([Corridor] * 3, autoreset_mode=mode), steps=24)


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
def test_episode_statistics_may_tell_the_time(mode: AutoresetMode, checked: Any) -> None:
    checked(lambda: RecordEpisodeStatistics(SyncVectorEnv([Corridor] * 3, autoreset_mode=mode)), steps=24)


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv], ids=lambda kind: kind.__name__)
def test_shared_observations_are_allowed_where_they_were_asked_for(kind: Any, checked: Any) -> None:
    checked(lambda: kind([Corridor] * 2, copy=False), steps=24)


def test_members_of_groups_are_found_through_wrappers(tiny_world: str) -> None:
    envs = gymnasium.make_vec(ID, num_envs=4, group_size=2, tokenizer=tiny_world, path_length=2)
    # As groups of four they would have to see the same scene.
    with pytest.raises(VectorEnvError, match="Expected the members of group 0 to see the same") as caught:
        check_vector_env(envs, steps=4, group_size=4)
    assert caught.value.check == "groups"
    check_vector_env(RecordEpisodeStatistics(envs), steps=4)


def test_reward_vectors_where_there_is_a_reward_space(checked: Any) -> None:
    class TwoObjectives(SyncVectorEnv):
        reward_space = spaces.Box(-10, 10, (2,))

        def step(self, actions: Any) -> Any:
            obs, rewards, *rest = super().step(actions)
            return obs, np.stack([rewards, -rewards], axis=1), *rest

    checked(lambda: TwoObjectives([Corridor] * 2), steps=24)
    with pytest.raises(VectorEnvError, match=r"Expected the rewards .* \(2, 2\), got ndarray float64 \(2,\)"):
        checked(lambda: type("Flat", (SyncVectorEnv,), {"reward_space": spaces.Box(0, 1, (2,))})([Corridor] * 2))


def test_deterministic_starts_are_warned_about(checked: Any) -> None:
    with pytest.warns(UserWarning, match="Expected different seeds to give different first observations") as caught:
        checked(lambda: SyncVectorEnv([lambda: Corridor(start=0)] * 2), steps=24)
    assert [str(each.filename) for each in caught] == [__file__]


def test_episodes_that_never_end_are_warned_about(checked: Any) -> None:
    with pytest.warns(UserWarning, match="Expected an episode to end within 8 steps"):
        checked(lambda: gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"), steps=8)


def test_the_environment_is_left_freshly_reset_and_the_action_space_as_it_was() -> None:
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    envs.action_space.seed(5)
    check_vector_env(envs, seed=3)
    sampled = envs.action_space.sample()
    after = envs.step(np.array([0, 1]))
    envs.reset(seed=3)
    assert all(np.array_equal(one, other) for one, other in zip(after, envs.step(np.array([0, 1])), strict=True))
    envs.action_space.seed(5)
    assert np.array_equal(sampled, envs.action_space.sample())
    envs.close()


def test_a_check_can_be_skipped() -> None:
    class Wavering(Corridor):
        def reset(self, **arguments: Any) -> Any:
            obs, _ = super().reset(**arguments)
            return obs, {"length": float(self.length)}

    envs = SyncVectorEnv([Wavering] * 2)
    with pytest.raises(VectorEnvError, match=r"infos\['length'\] to keep the type float64") as caught:
        check_vector_env(envs, steps=24)
    assert caught.value.check == "info_types"
    check_vector_env(envs, steps=24, skip="info_types")
    check_vector_env(envs, steps=24, skip=["info_keys", "info_types"])
    envs.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "Expected steps ≥ 1, got 0; "),
        ({"skip": "reward"}, "got 'reward'; did you mean 'rewards'?"),
        ({"skip": ["nothing like it"]}, "got 'nothing like it'; choose among attributes, "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(ValueError, match=message) as caught:
        check_vector_env(envs, **arguments)
    assert not isinstance(caught.value, VectorEnvError)


def test_a_scalar_environment_is_refused() -> None:
    with pytest.raises(
        VectorEnvError, match=r"attributes: Expected a gymnasium.vector.VectorEnv, got Corridor"
    ) as error:
        check_vector_env(Corridor())  # type: ignore[arg-type]
    assert error.value.check == "attributes"
