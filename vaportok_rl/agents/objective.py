"""The GRPO objective as pure functions (DeepSeekMath, arXiv 2402.03300; clip-higher: DAPO, arXiv 2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ScaleRewards = Literal["group", "batch", "none"]


def group_advantage(rewards: Tensor, eps: float = 1e-4, scale: ScaleRewards = "group") -> Tensor:
    """Group-relative advantages (DeepSeekMath §4.1.2).

    Args:
        rewards: ``[G, ...]``; the group is the first axis, G ≥ 2.
        eps: added to the sample standard deviation (Bessel-corrected).
        scale: divide by the standard deviation of the ``"group"`` (DeepSeekMath), of the whole ``"batch"`` (arXiv
            2508.08221), or by nothing (``"none"``: Dr. GRPO, arXiv 2503.20783).

    Returns:
        ``[G, ...]``; exactly 0 where all rewards of a group are equal.

    Raises:
        ValueError: the group has a single member.
    """
    if rewards.shape[0] < 2:
        raise ValueError(
            f"Expected groups of at least 2 paths, got {rewards.shape[0]}; a group of one has no relative advantage. "
            "Raise group_size."
        )
    centred = rewards - rewards.mean(0, keepdim=True)
    # The rounded mean differs slightly from equal rewards; dividing by eps would amplify that.
    equal = (rewards == rewards[:1]).all(0, keepdim=True)
    if scale == "none":
        return torch.where(equal, 0.0, centred)
    spread = rewards.std(0, correction=1, keepdim=True) if scale == "group" else rewards.std(correction=1)
    return torch.where(equal, 0.0, centred / (spread + eps))


def decoupled_advantage(rewards: Tensor, weights: Tensor, eps: float = 1e-4) -> Tensor:
    """Reward terms standardised one by one, then summed (GDPO, arXiv 2601.05242).

    Each term is standardised within its group, then the weighted sum over the batch, so that no term dominates by its
    range alone.

    Args:
        rewards: ``[M, G, ...]``, M unweighted terms.
        weights: ``[M]``.
        eps: added to each standard deviation.

    Returns:
        ``[G, ...]``; exactly 0 where every term is equal throughout a group.

    Raises:
        ValueError: the group has a single member.
    """
    summed = weighted_sum(group_advantage(rewards.transpose(0, 1), eps).transpose(0, 1), weights)
    # The mean over the batch is 0 already, as it is in each group.
    return summed / (summed.std(correction=1) + eps)


def weighted_sum(terms: Tensor, weights: Tensor) -> Tensor:
    """``[M, ...]`` terms and ``[M]`` weights to ``[...]``."""
    return (terms * weights.view(-1, *[1] * (terms.dim() - 1))).sum(0)


@dataclass(frozen=True)
class Surrogate:
    """The clipped objective and where it clips.

    Attributes:
        objective: same shape as the inputs; maximise it.
        ratio: probability ratio, detached.
        clipped_low: where the ratio fell below ``1 - clip_low`` with a negative advantage, detached.
        clipped_high: where it rose above ``1 + clip_high`` with a positive advantage, detached.
    """

    objective: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def clipped_surrogate(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_low: float,
    clip_high: float,
    delta: float | None = None,
) -> Surrogate:
    """``min(r·A, clip(r, 1 - clip_low, 1 + clip_high)·A)`` with ``r = exp(log π - log π_old)`` (DAPO Eq. 10).

    Args:
        log_prob: of the actions under the current policy, any shape.
        old_log_prob: under the sampling policy; this and ``advantage`` broadcast with it.
        advantage: group-relative advantage.
        clip_low: ε_low.
        clip_high: ε_high.
        delta: cap of the unclipped ratio, above ``1 + clip_high``. It bounds large ratios with a negative advantage,
            which clipping leaves unbounded (two-sided GRPO: INTELLECT-2, arXiv 2505.07291).
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    capped = ratio if delta is None else ratio.clamp(max=delta)
    detached = ratio.detach()
    return Surrogate(
        objective=torch.minimum(capped * advantage, clipped * advantage),
        ratio=detached,
        clipped_low=(detached < 1 - clip_low) & (advantage < 0),
        clipped_high=(detached > 1 + clip_high) & (advantage > 0),
    )


def kl_exact(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats from log-probabilities: ``[..., K]`` twice to ``[...]``."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl_k3(log_prob: Tensor, reference_log_prob: Tensor) -> Tensor:
    """The k3 estimate of KL(π ‖ π_ref) from actions drawn from π: ``exp(r) - r - 1``, r = log π_ref - log π.

    Unbiased and never negative (Schulman, "Approximating KL Divergence", 2020; DeepSeekMath Eq. 4).
    """
    log_ratio = reference_log_prob - log_prob
    return torch.expm1(log_ratio) - log_ratio


def entropy(log_p: Tensor) -> Tensor:
    """Entropy in nats of log-probabilities over the last axis: ``[..., K]`` to ``[...]``."""
    return -(log_p.exp() * log_p).sum(-1)
