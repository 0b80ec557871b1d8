"""The lower envelope of rate and distortion over many clips: the optimal order of spending tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def lower_hull(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The corners of the lower convex hull of a curve, up to its lowest point.

    Args:
        values: ``[N]``, the curve at 0 … N - 1.

    Returns:
        Increasing positions, from 0 to the first minimum; the slopes between them decrease in magnitude.
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
    """The allocation of tokens to clips by equal slopes.

    Every clip's distortion is replaced by its lower convex hull over the length. Taking the hulls' segments in order of
    savings per token minimises distortion + λ · tokens for each λ ≥ 0 (Everett's Lagrange multipliers, 1963; the
    equal-slope rule of rate–distortion optimisation). The resulting curve is a lower bound for every allocation.

    Attributes:
        start: ``int64 [N]``, each clip's shortest length.
        clips: ``int64 [S]``, the clip of each segment.
        steps: ``int64 [S]``, its tokens.
        savings: ``float64 [S]``, the distortion it saves; savings per token never rise along S.
        distortion: sum over the clips at their shortest lengths.
    """

    start: NDArray[np.int64]
    clips: NDArray[np.int64]
    steps: NDArray[np.int64]
    savings: NDArray[np.float64]
    distortion: float

    @classmethod
    def of(cls, distortion: ArrayLike, shortest: int = 1) -> EqualSlope:
        """Computes the order of segments.

        Args:
            distortion: ``[K, N]``, of each of N clips at the lengths ``shortest`` … ``shortest + K - 1``.
            shortest: minimum tokens per clip.
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
        """The minimum mean distortion at a mean length, interpolated between allocations."""
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
