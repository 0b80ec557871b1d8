"""Compares policies at equal tokens: error saved against a fixed length, and its share of the maximum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaportok_rl.evaluation.equal_slope import EqualSlope
from vaportok_rl.evaluation.intervals import CONFIDENCE, RESAMPLES, Interval, percentile_interval

SAVED, SHARE = "saved", "saved_share"
_Curve = NDArray[np.float64]


def share_between(value: ArrayLike, start: ArrayLike, end: ArrayLike) -> Any:
    """The position of a value between two bounds: 0 at ``start``, 1 at ``end``, negative before ``start``.

    Gap closed (best fixed length to oracle), the percentile (worst to oracle) and the share of the best allocation's
    saving all use it.

    Returns:
        An array or float of the arguments' broadcast shape; NaN where the bounds are equal up to rounding.
    """
    value, start, end = (np.asarray(each, dtype=np.float64) for each in (value, start, end))
    span = end - start
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(np.abs(span) > 1e-7 * (np.abs(start) + np.abs(end)), (value - start) / span, np.nan)
    return found if found.ndim else float(found)


@dataclass(frozen=True)
class EqualTokens:
    """Errors of fixed lengths and of the best allocation at any mean number of tokens.

    Attributes:
        errors: ``float64 [N, P, L]``, mean squared errors at the lengths ``shortest`` … ``shortest + N - 1``.
        shortest: minimum tokens per clip.
    """

    errors: NDArray[np.float64]
    shortest: int = 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The N lengths."""
        return np.arange(self.shortest, self.shortest + len(self.errors))

    @cached_property
    def envelope(self) -> EqualSlope:
        """The best allocation over all clips, a lower bound for every policy."""
        return EqualSlope.of(self.errors.reshape(len(self.errors), -1), self.shortest)

    @cached_property
    def fixed(self) -> NDArray[np.float64]:
        """``[N]``, mean error of each fixed length."""
        means: NDArray[np.float64] = self.errors.mean((1, 2))
        return means

    def savings(self, n_tokens: ArrayLike, mse: ArrayLike) -> dict[str, float]:
        """Error saved by a policy at its mean number of tokens.

        Args:
            n_tokens: lengths of any shape, or their mean.
            mse: errors, or their mean.

        Returns:
            ``saved``: relative reduction of the error against a fixed length with as many tokens (interpolated
            linearly); ``saved_share``: the same as a share of the best allocation's reduction.
        """
        tokens, error = (float(np.mean(np.asarray(each, dtype=np.float64))) for each in (n_tokens, mse))
        return self._savings(tokens, error, self.fixed, self.envelope.curve())

    def _savings(self, tokens: float, mse: float, fixed: _Curve, envelope: tuple[_Curve, _Curve]) -> dict[str, float]:
        reference, bound = np.interp(tokens, self.lengths, fixed), np.interp(tokens, envelope[0], envelope[1])
        return {SAVED: float(1 - mse / reference), SHARE: share_between(mse, reference, bound)}

    def intervals(
        self, policies: Mapping[str, tuple[ArrayLike, ArrayLike]], seed: int = 0
    ) -> dict[str, dict[str, Interval]]:
        """95 % bootstrap intervals of `savings`, by policy.

        Paths are resampled with replacement; policies, fixed lengths and the best allocation use the same resamples.

        Args:
            policies: lengths and errors ``[P, L]`` by name.
            seed: of the resamples.
        """
        paths, length = self.errors.shape[1:]
        if paths < 2:
            return {name: dict.fromkeys((SAVED, SHARE), (float("nan"), float("nan"))) for name in policies}
        by_path = {name: [np.asarray(each, float).mean(-1) for each in pair] for name, pair in policies.items()}
        curves, envelope = self.errors.mean(2), self.envelope
        owner = envelope.clips // length
        first = curves[0]
        draws = np.random.default_rng(seed).multinomial(paths, np.full(paths, 1 / paths), RESAMPLES) / paths
        found: dict[str, list[dict[str, float]]] = {name: [] for name in policies}
        for weights in draws:
            # A path drawn twice counts twice; the order of the envelope's segments stays the same.
            weight = weights[owner] / length
            bound = (
                self.shortest + np.concatenate([[0.0], (weight * envelope.steps).cumsum()]),
                weights @ first - np.concatenate([[0.0], (weight * envelope.savings).cumsum()]),
            )
            fixed = curves @ weights
            for name, (tokens, mse) in by_path.items():
                found[name].append(self._savings(weights @ tokens, weights @ mse, fixed, bound))
        return {
            name: {metric: percentile_interval([row[metric] for row in rows], CONFIDENCE) for metric in (SAVED, SHARE)}
            for name, rows in found.items()
        }
