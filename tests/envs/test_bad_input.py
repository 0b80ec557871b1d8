"""Every face refuses the same bad input in the same form: *Expected …, got …; do this*."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from vaportok_rl.envs import TaildropVecEnv
from vaportok_rl.registration import MO_TAILDROP_ID, TAILDROP_ID

Make = Callable[..., Any]


def _vector(name: str) -> Make:
    return lambda **settings: gymnasium.make_vec(
        name, **({"num_envs": 2, "vectorization_mode": "vector_entry_point"} | settings)
    )


def _scalar(name: str) -> Make:
    # The face itself: Gymnasium's wrappers answer some of this before it can.
    return lambda **settings: gymnasium.make(name, **settings).unwrapped


SCALARS = {name: _scalar(name) for name in (TAILDROP_ID, MO_TAILDROP_ID)}
VECTORS = {f"{name} vector": _vector(name) for name in (TAILDROP_ID, MO_TAILDROP_ID)}
SB3: dict[str, Make] = {"SB3": lambda **settings: TaildropVecEnv(**({"num_envs": 2} | settings))}
FACES = SCALARS | VECTORS | SB3


def one_of(faces: dict[str, Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", faces.values(), ids=list(faces))


def refusal(error: type[Exception], attempt: Callable[[], object]) -> str:
    """What is said about bad input, after checking that it has the three parts."""
    with pytest.raises(error) as caught:
        attempt()
    message = str(caught.value)
    assert re.fullmatch(r"Expected .+[,;] got .+; .+", message), message
    return message


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"path_lenght": 3}, TypeError, "'path_lenght'; did you mean 'path_length'?"),
        ({"reward": {"weights": {"diversty": 1.0}}}, ValueError, "'diversty'; did you mean 'diversity'?"),
        ({"path_length": 2.0}, TypeError, "Expected path_length to be a whole number, got 2.0"),
        ({"path_length": "2"}, TypeError, "Expected path_length to be a whole number, got '2'"),
        ({"clip_seed": 1.5}, TypeError, "Expected clip_seed to be a whole number, got 1.5"),
        ({"reward": {"weights": [1.0, 2.0]}}, ValueError, "weights by term name, got [1.0, 2.0]"),
        ({"reward": {"terms": [3]}}, ValueError, "a function with a name"),
        ({"reward": {"weights": {"penalty": float("nan")}}}, ValueError, "a finite weight for 'penalty', got nan"),
        ({"path_length": 10**9}, ValueError, "the clips available"),
        ({"min_tokens": 9, "max_tokens": 8}, ValueError, "min_tokens=9, max_tokens=8"),
    ],
    ids=[
        "unknown argument",
        "unknown term",
        "path length a float",
        "path length a text",
        "clip seed a float",
        "weights as a list",
        "term that is no function",
        "weight NaN",
        "path too long",
        "token range empty",
    ],
)
@one_of(FACES)
def test_settings(tiny_world: str, make: Make, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    assert message in refusal(error, lambda: make(tokenizer=tiny_world, **settings))


@one_of(VECTORS | SB3)
def test_a_group_size_that_does_not_divide_the_environments(tiny_world: str, make: Make) -> None:
    message = refusal(ValueError, lambda: make(tokenizer=tiny_world, num_envs=6, group_size=4))
    assert "num_envs=6, group_size=4" in message
    for name in ("num_envs", "group_size"):
        assert f"{name} to be an integer" in refusal(TypeError, lambda name=name: make(**{name: 4.0}))


@pytest.mark.parametrize(
    ("action", "error", "got"),
    [(16, ValueError, "got 16"), (-1, ValueError, "got -1"), (3.0, TypeError, "got float64")],
    ids=["past K", "negative", "float"],
)
@one_of(FACES)
def test_actions(tiny_world: str, make: Make, action: float, error: type[Exception], got: str) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    env.reset()
    acted = np.full(getattr(env, "num_envs", ()), action)
    assert got in refusal(error, lambda: env.step(acted))


@one_of(FACES)
def test_a_step_before_reset(tiny_world: str, make: Make) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    refusal(RuntimeError, lambda: env.step(np.zeros(getattr(env, "num_envs", ()), dtype=np.int64)))


@one_of(SCALARS | {name: lambda make=make, **s: make(autoreset_mode="Disabled", **s) for name, make in VECTORS.items()})
def test_a_step_after_the_end(tiny_world: str, make: Make) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    action = np.zeros(getattr(env, "num_envs", ()), dtype=np.int64)
    env.step(action)
    refusal(RuntimeError, lambda: env.step(action))


@pytest.mark.parametrize(
    ("seed", "error", "said"),
    [(np.int64(3), TypeError, "pass int(seed)"), (2.0, TypeError, "got 2.0"), (-1, ValueError, "got -1")],
)
@one_of(SCALARS | VECTORS)
def test_seeds(tiny_world: str, make: Make, seed: Any, error: type[Exception], said: str) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    assert said in refusal(error, lambda: env.reset(seed=seed))
