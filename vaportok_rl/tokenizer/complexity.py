"""Spatial and temporal complexity of clips (Eq. 1–5), their score in [0, 1], and the Gaussian prior over lengths."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vaportok_rl.tokenizer.config import ComplexityConfig

_LEVELS = 256


def grey_levels(clips: Tensor) -> Tensor:
    """Luma on the 0–255 scale (Eq. 1).

    Args:
        clips: ``[B, C, T, H, W]`` with C = 3 (RGB) or 1; uint8, or float in [0, 1].

    Returns:
        ``float32 [B, T, H, W]``, not rounded.
    """
    levels = clips.float() if clips.dtype == torch.uint8 else clips.float() * 255
    if clips.shape[1] == 1:
        return levels[:, 0]
    return 0.299 * levels[:, 0] + 0.587 * levels[:, 1] + 0.114 * levels[:, 2]


def clip_complexity(clips: Tensor) -> Tensor:
    """Spatial and temporal complexity.

    SC is the mean over frames of the Shannon entropy, in bits, of the rounded grey levels (Eq. 2–4); TC is the mean
    absolute grey difference between consecutive frames, in grey levels (Eq. 5).

    Args:
        clips: ``[B, C, T, H, W]``; see `grey_levels`.

    Returns:
        ``float32 [B, 2]``: SC in 0 … 8, TC in 0 … 255.

    Raises:
        ValueError: the clips have a single frame, for which TC is not defined.
    """
    if clips.dim() != 5 or clips.shape[2] < 2:
        raise ValueError(
            f"Expected clips [B, C, T, H, W] with at least 2 frames, got shape {tuple(clips.shape)}; "
            "temporal complexity compares consecutive frames."
        )
    grey = grey_levels(clips)
    batch, frames = grey.shape[:2]
    # One histogram over (frame, level) pairs: the frame number is folded into the bin.
    bins = grey.round().clamp(0, _LEVELS - 1).long().view(batch * frames, -1)
    counts = torch.zeros(batch * frames, _LEVELS, device=clips.device)
    counts = counts.scatter_add(1, bins, torch.ones_like(bins, dtype=counts.dtype))
    shares = counts / bins.shape[1]
    entropy = -torch.special.xlogy(shares, shares).sum(1) / torch.log(torch.full_like(shares[:, 0], 2.0))
    temporal = (grey[:, 1:] - grey[:, :-1]).abs().flatten(1).mean(1)
    return torch.stack([entropy.view(batch, frames).mean(1), temporal], dim=1)


def calibrate(complexity: Tensor, config: ComplexityConfig, knots: int = 21) -> ComplexityConfig:
    """Fits the quantile tables to training clips.

    Args:
        complexity: ``[N, 2]``, SC and TC of the clips.
        config: everything but the tables is kept.
        knots: entries in each table.

    Returns:
        A configuration whose score is uniform in either complexity over these clips.
    """
    levels = torch.linspace(0, 1, knots, device=complexity.device)
    tables = torch.quantile(complexity.float(), levels, dim=0).double().cpu()
    return replace(
        config,
        spatial_quantiles=tuple(round(value, 4) for value in tables[:, 0].tolist()),
        temporal_quantiles=tuple(round(value, 4) for value in tables[:, 1].tolist()),
    )


class ComplexityScale(torch.nn.Module):
    """Complexity to quantiles, to a score, to the Gaussian prior over 1 … K (supplement A.4).

    The tables are buffers so that they follow the model to its device; they are stored in ``config.json``, not among
    the weights.
    """

    def __init__(self, config: ComplexityConfig, tokens: int) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        tables = (("spatial_knots", config.spatial_quantiles), ("temporal_knots", config.temporal_quantiles))
        for name, values in tables:
            # Equal knots (many identical clips) would divide by zero below.
            rising = torch.tensor(values) + torch.arange(len(values)) * 1e-6
            self.register_buffer(name, rising.float(), persistent=False)

    @staticmethod
    def _quantile(values: Tensor, knots: Tensor) -> Tensor:
        upper = torch.searchsorted(knots, values.contiguous()).clamp(1, knots.shape[0] - 1)
        low, high = knots[upper - 1], knots[upper]
        # Far from 0 float32 swallows the rise added above; equal knots then give 0, not 0/0.
        share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return (upper - 1 + share) / (knots.shape[0] - 1)

    def quantiles(self, complexity: Tensor) -> Tensor:
        """SC and TC as quantiles of the training clips: ``[..., 2]`` to ``float32 [..., 2]`` in [0, 1]."""
        spatial = self._quantile(complexity[..., 0], self.get_buffer("spatial_knots"))
        temporal = self._quantile(complexity[..., 1], self.get_buffer("temporal_knots"))
        return torch.stack([spatial, temporal], dim=-1)

    def score(self, complexity: Tensor) -> Tensor:
        """One number per clip, with more weight on the temporal part: ``[..., 2]`` to ``float32 [...]`` in [0, 1]."""
        quantiles = self.quantiles(complexity)
        share = self.config.temporal_share
        return (1 - share) * quantiles[..., 0] + share * quantiles[..., 1]

    def prior_mean(self, complexity: Tensor) -> Tensor:
        """Mean of the Gaussian length prior, in tokens: ``[..., 2]`` to ``float32 [...]``."""
        low, high = self.config.mean_range
        return self.tokens * (low + (high - low) * self.score(complexity))

    def gaussian_prior(self, complexity: Tensor) -> Tensor:
        """Log-probabilities of the discretised, renormalised Gaussian over lengths 1 … K.

        Args:
            complexity: ``[..., 2]``.

        Returns:
            ``float32 [..., K]``; entry a is the length n = a + 1.
        """
        mean = self.prior_mean(complexity)
        lengths = torch.arange(1, self.tokens + 1, device=complexity.device)
        deviation = self.config.deviation * self.tokens
        return (-0.5 * ((lengths - mean[..., None]) / deviation).square()).log_softmax(-1)
