"""Distances of real clips to reconstructions (rFVD) or generated clips (gFVD)."""

from __future__ import annotations

from dataclasses import dataclass

from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance, polynomial_mmd
from vaportok_rl.evaluation.feature_networks import FeatureNetwork


@dataclass(frozen=True)
class VideoDistance:
    """The distances of two sets of clips, with the settings they depend on.

    Attributes:
        frechet: Fréchet distance of the features.
        mmd: squared maximum mean discrepancy of the features; see `polynomial_mmd`.
        clips: clips in the evaluated set.
        reference_clips: clips in the reference set.
        features: d, features per clip.
        network: of the features.
        network_sha256: of its file.
    """

    frechet: float
    mmd: float
    clips: int
    reference_clips: int
    features: int
    network: str
    network_sha256: str

    @property
    def few(self) -> bool:
        """Whether there are no more clips than features, so that a covariance is singular."""
        return min(self.clips, self.reference_clips) <= self.features

    def note(self) -> str:
        """A line to print under every table of these distances."""
        warning = f" Too few clips for a covariance of {self.features} features: read the MMD." if self.few else ""
        return (
            f"{self.clips} clips against {self.reference_clips}; features of {self.network}, SHA-256 "
            f"{self.network_sha256[:12]}.{warning}"
        )


def compare(
    network: FeatureNetwork, reference: FeatureStatistics, judged: FeatureStatistics, *, allow_few: bool = False
) -> VideoDistance:
    """The distances of two sets from their features; see `frechet_distance` for ``allow_few`` and errors."""
    return VideoDistance(
        frechet_distance(reference, judged, allow_few=allow_few),
        polynomial_mmd(reference, judged),
        judged.count,
        reference.count,
        reference.width,
        network.name,
        network.sha256,
    )
