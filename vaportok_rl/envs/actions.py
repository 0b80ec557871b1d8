"""Checks of actions, integers and seeds that users pass to an environment."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def checked_actions(actions: Any, count: int | None, tokens: int) -> NDArray[np.int64]:
    """Returns actions as ``int64`` after checking type, shape and range.

    Args:
        actions: integers in 0 … K - 1; a scalar where ``count`` is None.
        count: number of environments, or None for a scalar one.
        tokens: K.

    Raises:
        TypeError: the actions are not integers.
        ValueError: wrong shape, or an action outside 0 … K - 1.
    """
    array = np.asarray(actions)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"Expected integer actions (action a keeps n = a + 1 tokens), got {array.dtype} {actions!r}; convert with "
            "int(action) or astype(int)."
        )
    shape = () if count is None else (count,)
    if array.shape != shape:
        raise ValueError(f"Expected actions of shape {shape}, got {array.shape}; one action for each environment.")
    if array.size and (array.min() < 0 or array.max() >= tokens):
        raise ValueError(
            f"Expected actions in 0…{tokens - 1}, got {array.min()}…{array.max()}; action a keeps n = a + 1 tokens."
        )
    return array.astype(np.int64)


def check_whole(name: str, value: object) -> None:
    """Checks that an argument is a whole number.

    Raises:
        TypeError: it is not an integer.
    """
    try:
        operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError as error:
        raise TypeError(f"Expected {name} to be an integer, got {value!r}; pass int({name}).") from error


def check_seed(seed: object) -> None:
    """Checks a seed as Gymnasium does, with a message that says what to do.

    Raises:
        TypeError: the seed is neither None nor a Python integer.
        ValueError: the seed is negative.
    """
    if seed is None:
        return
    if not isinstance(seed, int):
        raise TypeError(
            f"Expected seed to be a Python int or None, got {seed!r} of type {type(seed).__name__}; pass int(seed)."
        )
    if seed < 0:
        raise ValueError(f"Expected seed ≥ 0, got {seed}; pass a non-negative integer.")
