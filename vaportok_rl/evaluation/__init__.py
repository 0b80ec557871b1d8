"""Metrics: reconstruction quality, rate–distortion, rank statistics."""

from vaportok_rl.evaluation.ranks import spearman, spearman_interval
from vaportok_rl.evaluation.rate_distortion import (
    RateDistortion,
    clip_batches,
    default_lengths,
    own_lengths,
    rate_distortion,
)
from vaportok_rl.evaluation.reconstruction import clip_variance, explained_variance, mean_squared_error, psnr

__all__ = [
    "RateDistortion",
    "clip_batches",
    "clip_variance",
    "default_lengths",
    "explained_variance",
    "mean_squared_error",
    "own_lengths",
    "psnr",
    "rate_distortion",
    "spearman",
    "spearman_interval",
]
