"""Checks actions at the border of the environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def checked_actions(actions: Any, count: int | None, tokens: int) -> NDArray[np.int64]:
    """Returns actions as ``int64`` after checking type, shape and range.

    Args:
        actions: integers in 0 … K - 1; a scalar where ``count`` is None.
        count: how many are expected.
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
