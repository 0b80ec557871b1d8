"""Distances between the features of two sets of clips: Fréchet distance and polynomial-kernel MMD.

Both depend only on count, mean and covariance, so memory does not grow with the number of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.runtime.ranks import Processes


class TooFewClipsError(ValueError):
    """There are no more clips than features, so their covariance is singular."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Count, mean and scatter of a set of feature vectors.

    Attributes:
        count: N.
        mean: ``float64 [d]``.
        scatter: ``float64 [d, d]``, sum of the outer products of the centred features.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Statistics of ``float [N, d]`` features.

        Raises:
            ValueError: another shape, no rows, NaN or infinity.
        """
        if features.dim() != 2 or not len(features) or not features.is_floating_point():
            raise ValueError(
                f"Expected features as floats [N, d] with N ≥ 1, got {features.dtype} of shape "
                f"{tuple(features.shape)}; the network must give one vector a clip."
            )
        exact = features.double()
        if not bool(exact.isfinite().all()):
            raise ValueError("Expected finite features, got NaN or infinity; check the clips and the feature network.")
        mean = exact.mean(0)
        left = exact - mean
        return cls(len(exact), mean, left.T @ left)

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of the union of two disjoint sets (Chan et al. 1979).

        Raises:
            ValueError: the features have another width.
        """
        _check_width(self, other)
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / count)
        return FeatureStatistics(count, self.mean + apart * (other.count / count), scatter)

    def over_processes(self, processes: Processes) -> FeatureStatistics:
        """Statistics of the union of all ranks' sets, equal on each; every rank must call it."""
        if processes.count == 1:
            return self
        width = self.width
        own = torch.cat([self.mean.new_tensor([self.count]), self.mean, self.scatter.flatten()])
        parts = processes.gather(own[None], 0)
        return reduce(
            FeatureStatistics.merged,
            (
                FeatureStatistics(int(part[0]), part[1 : 1 + width], part[1 + width :].view(width, width))
                for part in parts
            ),
        )

    @property
    def width(self) -> int:
        """d, features per clip."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """``float64 [d, d]``, divided by N - 1 as `numpy.cov` does."""
        return self.scatter / (self.count - 1)

    @property
    def second_moment(self) -> Tensor:
        """``float64 [d, d]``, mean of the outer products of the features."""
        return self.scatter / self.count + torch.outer(self.mean, self.mean)


def check_enough(clips: int, features: int, allow_few: bool = False) -> None:
    """Checks that there are clips enough for a covariance of the features; see `frechet_distance`.

    Raises:
        TooFewClipsError: there are not.
    """
    if clips < 2 or (clips <= features and not allow_few):
        raise TooFewClipsError(
            f"Expected more clips than the {features} features for a covariance, got {clips}; take more clips, or read "
            "the maximum mean discrepancy, which needs fewer (`vaportok-rl distance --few`)."
        )


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics, *, allow_few: bool = False) -> float:
    """Squared Fréchet distance of the Gaussians with these means and covariances (Heusel et al. 2017).

    ``|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½)``. The last trace is the sum of the singular values of ``Σ₁^½ Σ₂^½``, which
    is symmetric, needs no complex root and is defined for singular covariances.

    Args:
        one: statistics of a set.
        other: of another.
        allow_few: compute it even if too few clips make a covariance singular; reports must then say so.

    Raises:
        TooFewClipsError: a set has no more clips than features.
        ValueError: the features have different widths.
    """
    _check_width(one, other)
    check_enough(min(one.count, other.count), one.width, allow_few)
    spread = one.covariance.trace() + other.covariance.trace()
    shared = torch.linalg.svdvals(_root(one.covariance) @ _root(other.covariance)).sum()
    return max(0.0, float((one.mean - other.mean).square().sum() + spread - 2 * shared))


def resampled_frechet(
    reference: Tensor, others: Sequence[Tensor], resamples: int = 500, seed: int = 0
) -> NDArray[np.float64]:
    """Fréchet distances to a reference set under bootstrap resampling of clips, for standard errors.

    Row i of all sets belongs together (a clip, its reconstruction, a generated clip of its class), so rows are drawn
    together. Resampled distances are biased upwards: use their spread, not their quantiles.

    Args:
        reference: features ``float [N, d]``.
        others: the sets to compare with it, of the same shape.
        resamples: R.
        seed: of the resamples.

    Returns:
        ``float64 [R, len(others)]``.
    """
    rng = np.random.default_rng(seed)
    found = np.empty((resamples, len(others)))
    for row in found:
        rows = torch.from_numpy(rng.integers(0, len(reference), len(reference))).to(reference.device)
        drawn = FeatureStatistics.of(reference[rows])
        row[:] = [frechet_distance(drawn, FeatureStatistics.of(other[rows]), allow_few=True) for other in others]
    return found


def polynomial_mmd(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """Squared maximum mean discrepancy under the kernel ``(x·y / d)²``: JEDi's (arXiv 2410.05203), which times 100.

    For this kernel the mean over all pairs is a product of second moments, so no pairs are formed. It is the biased
    estimate, 0 for equal sets; compare sets of equal size.

    Raises:
        ValueError: the features have different widths.
    """
    _check_width(one, other)
    return float(((one.second_moment - other.second_moment) / one.width).square().sum())


def _root(covariance: Tensor) -> Tensor:
    """The symmetric positive square root."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _check_width(one: FeatureStatistics, other: FeatureStatistics) -> None:
    if one.width != other.width:
        raise ValueError(
            f"Expected features of equal width, got {one.width} and {other.width}; use one feature network for both."
        )
