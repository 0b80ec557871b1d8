"""All environment classes refuse the same bad input in the same form: *Expected …, got …; do this*."""

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
    """The message about bad input, checked to have the three parts."""
    with pytest.raises(error) as caught:
        attempt()
    message = str(caught.value)
    assert re.fullmatch(r"Expected .+[,;] got .+; .+", message), message
    return message


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"path_lenght": 3}, TypeError, "'path_lenght'; did you mean 'path_length'?"),
        ({"min_token": 3}, TypeError, "'min_token'; did you mean 'min_tokens'?"),
        ({"qqq": 3}, TypeError, "'qqq'"),
        ({"path_length": 2.0}, TypeError, "path_length to be a whole number, got 2.0"),
        ({"path_length": "2"}, TypeError, "path_length to be a whole number, got '2'"),
        ({"clip_seed": 1.5}, TypeError, "clip_seed to be a whole number, got 1.5"),
        *(
            ({name: 8.5}, TypeError, f"{name} to be a whole number, got 8.5")
            for name in ("min_tokens", "max_tokens", "token_budget")
        ),
        ({"path_length": 0}, ValueError, "path_length ≥ 1, got 0"),
        ({"path_length": 10**9}, ValueError, "the clips available"),
        ({"min_tokens": 0}, ValueError, "min_tokens ≥ 1, got 0"),
        ({"max_tokens": 17}, ValueError, "max_tokens=17"),
        ({"min_tokens": 9, "max_tokens": 8}, ValueError, "min_tokens=9, max_tokens=8"),
        ({"path_length": 4, "min_tokens": 2, "token_budget": 7}, ValueError, "token_budget ≥ 8"),
        ({"obs": "latent"}, ValueError, "'latent'; did you mean 'latents'?"),
        ({"obs": ()}, ValueError, "obs to name at least one"),
        ({"obs": ("codes", "codes")}, ValueError, "obs to name each kind once"),
        ({"obs": ("codes", "video")}, ValueError, "got 'video'"),
        ({"ordering": "vidoe"}, ValueError, "got 'vidoe'"),
        ({"ordering": "video"}, ValueError, "ordering='independent'"),
        ({"render_mode": "rgb"}, ValueError, "got 'rgb'"),
        ({"split": "valid"}, ValueError, "got 'valid'"),
        ({"precision": "float16"}, ValueError, "got 'float16'"),
        ({"reward": {"weights": {"diversty": 1.0}}}, ValueError, "'diversty'; did you mean 'diversity'?"),
        ({"reward": {"weigths": {}}}, ValueError, "did you mean 'weights'?"),
        ({"reward": {"weights": [1.0, 2.0]}}, ValueError, "weights by term name, got [1.0, 2.0]"),
        ({"reward": {"weights": {"penalty": float("nan")}}}, ValueError, "a finite weight for 'penalty', got nan"),
        ({"reward": {"terms": [3]}}, ValueError, "a function with a name"),
    ],
    ids=str,
)
@one_of(FACES)
@pytest.mark.filterwarnings("ignore:.*not in the possible render_modes")
def test_settings(tiny_world: str, make: Make, settings: dict[str, Any], error: type[Exception], named: str) -> None:
    assert named in refusal(error, lambda: make(tokenizer=tiny_world, **settings))


@one_of(VECTORS | SB3)
def test_groups(tiny_world: str, make: Make) -> None:
    for sizes in ({"num_envs": 6, "group_size": 4}, {"num_envs": 0}, {"group_size": 0}):
        shown = ", ".join(f"{name}={value}" for name, value in sizes.items())
        assert shown in refusal(ValueError, lambda sizes=sizes: make(tokenizer=tiny_world, **sizes))
    for name in ("num_envs", "group_size"):
        assert f"{name} to be an integer" in refusal(TypeError, lambda name=name: make(**{name: 4.0}))
    assert "NEXT_STEP" in refusal(ValueError, lambda: make(tokenizer=tiny_world, autoreset_mode="NextStep"))


@one_of(SCALARS)
def test_an_argument_of_the_vector_environment(make: Make) -> None:
    assert "'group_size', which TaildropVectorEnv takes" in refusal(TypeError, lambda: make(group_size=2))


@pytest.mark.parametrize(
    ("action", "error", "got"),
    [
        (16, ValueError, "got 16"),
        (-1, ValueError, "got -1"),
        *((action, TypeError, "Expected integer actions") for action in (3.0, np.float32(2), True, None, "3")),
        ([[1, 1, 1]], ValueError, "(1, 3)"),
    ],
    ids=str,
)
@one_of(FACES)
def test_actions(tiny_world: str, make: Make, action: Any, error: type[Exception], got: str) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    env.reset()
    shape = getattr(env, "num_envs", ())
    assert got in refusal(error, lambda: env.step(action if isinstance(action, list) else np.full(shape, action)))
    # A refused action decides nothing.
    assert np.all(env.step(np.full(shape, 15))[2])


@one_of(FACES)
def test_a_step_before_reset(tiny_world: str, make: Make) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    refusal(RuntimeError, lambda: env.step(np.zeros(getattr(env, "num_envs", ()), dtype=np.int64)))
    if hasattr(env, "action_masks"):
        refusal(RuntimeError, env.action_masks)


@one_of(SCALARS | {name: lambda make=make, **s: make(autoreset_mode="Disabled", **s) for name, make in VECTORS.items()})
def test_a_step_after_the_end(tiny_world: str, make: Make) -> None:
    env = make(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    action = np.zeros(getattr(env, "num_envs", ()), dtype=np.int64)
    env.step(action)
    refusal(RuntimeError, lambda: env.step(action))
    env.reset()
    env.step(action)


@pytest.mark.parametrize(
    ("seed", "error", "remedy"),
    [(np.int64(3), TypeError, "int(seed)"), (2.0, TypeError, "int(seed)"), (-1, ValueError, "got -1")],
)
@one_of(SCALARS | VECTORS)
def test_seeds(tiny_world: str, make: Make, seed: Any, error: type[Exception], remedy: str) -> None:
    assert remedy in refusal(error, lambda: make(tokenizer=tiny_world, path_length=1).reset(seed=seed))
