"""The lower envelope of rate and distortion: which tokens to spend first, over many clips at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def lower_hull(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The corners of the lower convex hull of a curve, up to its lowest point.

    Args:
        values: ``[N]``, the curve at 0 … N - 1.

    Returns:
        Positions in increasing order, from 0 to the first minimum; between them, values fall less and less steeply.
    """
    corners: list[int] = []
    for position in range(int(values.argmin()) + 1):
        while len(corners) > 1:
            first, second = corners[-2], corners[-1]
            drop, run = values[first] - values[second], second - first
            # The middle corner stays only if the curve falls faster before it than after it.
            if drop * (position - second) > (values[second] - values[position]) * run:
                break
            corners.pop()
        corners.append(position)
    return np.array(corners, dtype=np.int64)


@dataclass(frozen=True)
class EqualSlope:
    """How to spend tokens on several clips so that the last one buys equally much everywhere.

    Every clip's distortion is replaced by its lower convex hull over the length. Taking the hulls' segments in the
    order of what they save a token minimises distortion + λ · tokens for each λ ≥ 0 (Everett's Lagrange multipliers,
    1963; the equal-slope rule of rate–distortion optimisation). The curve through the points so reached bounds from
    below what any allocation can do.

    Attributes:
        start: ``int64 [N]``, each clip's shortest length.
        clips: ``int64 [S]``, whose segment is taken.
        steps: ``int64 [S]``, tokens it costs.
        savings: ``float64 [S]``, distortion it saves; savings a token never rise along S.
        distortion: summed over the clips at their shortest lengths.
    """

    start: NDArray[np.int64]
    clips: NDArray[np.int64]
    steps: NDArray[np.int64]
    savings: NDArray[np.float64]
    distortion: float

    @classmethod
    def of(cls, distortion: ArrayLike, shortest: int = 1) -> EqualSlope:
        """Finds the order of spending.

        Args:
            distortion: ``[K, N]``, of each of N clips at the lengths ``shortest`` … ``shortest + K - 1``.
            shortest: fewest tokens of a clip.
        """
        table = np.asarray(distortion, dtype=np.float64)
        clips: list[int] = []
        steps: list[int] = []
        savings: list[float] = []
        for clip in range(table.shape[1]):
            corners = lower_hull(table[:, clip])
            clips += [clip] * (len(corners) - 1)
            steps += np.diff(corners).tolist()
            savings += (-np.diff(table[corners, clip])).tolist()
        spent, saved = np.array(steps, dtype=np.int64), np.array(savings, dtype=np.float64)
        order = np.argsort(-saved / np.maximum(spent, 1), kind="stable")
        return cls(
            start=np.full(table.shape[1], shortest, dtype=np.int64),
            clips=np.array(clips, dtype=np.int64)[order],
            steps=spent[order],
            savings=saved[order],
            distortion=float(table[0].sum()),
        )

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tokens and distortion, both means over the clips, at the S + 1 corners of the envelope."""
        tokens = np.concatenate([[0], self.steps.cumsum()]) + self.start.sum()
        distortion = self.distortion - np.concatenate([[0.0], self.savings.cumsum()])
        count = len(self.start)
        return tokens / count, distortion / count

    def bound(self, mean_tokens: float) -> float:
        """The least mean distortion at this mean length, lengths mixed where none fits exactly."""
        return float(np.interp(mean_tokens, *self.curve()))

    def lengths(self, budget: int) -> NDArray[np.int64]:
        """The last allocation on the envelope within a budget: ``int64 [N]``, at most ``budget`` tokens in all.

        Args:
            budget: tokens for all clips together; at least N times the shortest length.
        """
        affordable = self.steps.cumsum() + self.start.sum() <= budget
        lengths = self.start.copy()
        np.add.at(lengths, self.clips[affordable], self.steps[affordable])
        return lengths
