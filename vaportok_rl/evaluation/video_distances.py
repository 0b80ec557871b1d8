"""Distances of real clips to reconstructions (rFVD) or generated clips (gFVD)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance, polynomial_mmd
from vaportok_rl.evaluation.feature_networks import FeatureNetwork
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer import VaporTok


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


def clip_statistics(network: FeatureNetwork, batches: Iterable[Tensor]) -> FeatureStatistics:
    """Feature statistics of batches of clips, ``[B, 3, T, H, W]`` each, uint8 or float in [0, 1]."""
    return FeatureStatistics.over(map(network, batches))


@torch.no_grad()
def reconstruction_distance(
    world: VaporTok,
    network: FeatureNetwork,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    allow_few: bool = False,
    processes: Processes | None = None,
) -> VideoDistance:
    """rFVD: the distance of clips to their reconstructions.

    Args:
        world: the tokenizer.
        network: of the features.
        batches: clips ``uint8 [B, 3, T, H, W]``, their codes ``int64 [B, K]`` and lengths ``int64 [B]`` in 1 … K of a
            length policy.
        allow_few: see `frechet_distance`.
        processes: each with its own batches; one by default.

    Raises:
        TooFewClipsError: see `frechet_distance`.
        ValueError: there are no clips.
    """
    sets: list[FeatureStatistics] = []
    for clips, codes, n_tokens in batches:
        decoded = world.decode(codes.to(world.device), n_tokens.to(world.device))
        new = [FeatureStatistics.of(network(video)) for video in (clips, decoded)]
        sets = [old.merged(more) for old, more in zip(sets, new, strict=True)] if sets else new
    if not sets:
        raise ValueError("Expected at least one batch of clips, got none; pass clips.")
    reference, judged = (part.over_processes(processes or Processes()) for part in sets)
    return compare(network, reference, judged, allow_few=allow_few)
