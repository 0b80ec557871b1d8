"""The allowed lengths: a range per clip, and a purse of tokens per path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.envs.actions import check_whole


@dataclass(frozen=True)
class Purse:
    """Tokens that a path may spend beyond the minimum of each clip (a token bucket).

    Step j spends ``n - minimum``, at most what the purse holds; then the income arrives, up to the capacity. A token
    budget per path is a purse without income; a budget per second is one with an income and a small capacity.

    Attributes:
        start: tokens in the purse at the first clip.
        income: tokens that arrive after each clip.
        capacity: maximum tokens in the purse; what exceeds it is lost.

    Raises:
        ValueError: not 0 ≤ start ≤ capacity, or the income is negative.
    """

    start: int
    income: int
    capacity: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.capacity or self.income < 0:
            raise ValueError(f"Expected 0 ≤ start ≤ capacity and income ≥ 0, got {self}; correct it.")

    def after(self, held: Tensor, spent: Tensor | int) -> Tensor:
        """What the purse holds at the next clip: ``int64`` of any shape."""
        return (held - spent + self.income).clamp(max=self.capacity)


@dataclass(frozen=True)
class TokenRange:
    """The lengths allowed at each decision of a path.

    With a budget, every decision leaves at least ``minimum`` tokens for each later clip: at step j (from 0), after s
    tokens, lengths ``minimum … min(maximum, budget - s - minimum · (L - 1 - j))`` are allowed. At least one length is
    always allowed, and no path exceeds the budget.

    Attributes:
        tokens: K.
        path_length: L.
        minimum: minimum tokens per clip.
        maximum: maximum tokens per clip; K by default.
        budget: maximum tokens per path; no limit by default.

    Raises:
        TypeError: a number is not an integer.
        ValueError: the range is empty or not within 1 … K, or the budget does not reach L times the minimum.
    """

    tokens: int
    path_length: int
    minimum: int = 1
    maximum: int | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        budget = 0 if self.budget is None else self.budget
        names = ("tokens", "path_length", "min_tokens", "max_tokens", "token_budget")
        for name, value in zip(names, (self.tokens, self.path_length, self.minimum, self.longest, budget), strict=True):
            check_whole(name, value)
        if not 1 <= self.minimum <= self.longest <= self.tokens:
            raise ValueError(
                f"Expected 1 ≤ min_tokens ≤ max_tokens ≤ {self.tokens} (K), got min_tokens={self.minimum}, "
                f"max_tokens={self.maximum}; leave at least one length to choose."
            )
        if self.budget is not None and self.budget < self.minimum * self.path_length:
            raise ValueError(
                f"Expected token_budget ≥ {self.minimum * self.path_length}, {self.minimum} tokens for each of "
                f"{self.path_length} clips, got {self.budget}; raise it, or lower min_tokens or path_length."
            )

    @property
    def longest(self) -> int:
        """The maximum of the range, regardless of the budget."""
        return self.tokens if self.maximum is None else self.maximum

    @property
    def purse(self) -> Purse:
        """The budget as a purse; one that never binds without a budget."""
        most = (self.longest - self.minimum) * self.path_length
        start = most if self.budget is None else min(most, self.budget - self.minimum * self.path_length)
        return Purse(start, most if self.budget is None else 0, start)

    def highest(self, steps: NDArray[np.int64], spent: NDArray[np.int64]) -> NDArray[np.int64]:
        """The largest length allowed.

        Args:
            steps: decisions already taken, 0 … L; any shape.
            spent: tokens already kept, of a shape that broadcasts with ``steps``.

        Returns:
            ``int64``, of the broadcast shape; at least `minimum`, after the last decision too.
        """
        if self.budget is None:
            return np.full(np.broadcast_shapes(steps.shape, spent.shape), self.longest, dtype=np.int64)
        left = self.budget - spent - self.minimum * (self.path_length - 1 - steps)
        highest: NDArray[np.int64] = np.minimum(left, self.longest)
        return highest

    def masks(self, steps: NDArray[np.int64], spent: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which actions are allowed: ``bool [..., K]``, entry a for n = a + 1 tokens; arguments as for `highest`."""
        lengths = np.arange(1, self.tokens + 1)
        allowed: NDArray[np.bool_] = (lengths >= self.minimum) & (lengths <= self.highest(steps, spent)[..., None])
        return allowed

    def clip(
        self, n_tokens: NDArray[np.int64], steps: NDArray[np.int64], spent: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The nearest allowed lengths; arguments as for `highest`."""
        clipped: NDArray[np.int64] = np.minimum(np.maximum(n_tokens, self.minimum), self.highest(steps, spent))
        return clipped

    def clip_paths(self, n_tokens: Tensor) -> Tensor:
        """Clips whole paths, decision by decision, on the device.

        Args:
            n_tokens: ``int64 [..., L]`` in 1 … K.

        Returns:
            ``int64 [..., L]``, as `clip` would, step by step.
        """
        kept = n_tokens.clamp(self.minimum, self.longest)
        if self.budget is None:
            return kept
        left = torch.full_like(kept[..., 0], self.budget - self.minimum * self.path_length)
        columns = []
        for column in kept.unbind(-1):
            # `left` counts tokens beyond the minimum, which every later clip keeps anyway.
            extra = torch.minimum(column - self.minimum, left)
            left = left - extra
            columns.append(extra + self.minimum)
        return torch.stack(columns, -1)
