"""The GRPO objective as pure functions (DeepSeekMath, arXiv 2402.03300; clip-higher: DAPO, arXiv 2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def group_advantage(rewards: Tensor, eps: float = 1e-4) -> Tensor:
    """Rewards standardised within their group (DeepSeekMath §4.1.2).

    Args:
        rewards: ``[G, ...]``; the group is the first axis, G ≥ 2.
        eps: added to the sample standard deviation (Bessel-corrected).

    Returns:
        ``[G, ...]``; exactly 0 where all rewards of a group are equal.

    Raises:
        ValueError: the group has a single member, which has nothing to be compared with.
    """
    if rewards.shape[0] < 2:
        raise ValueError(
            f"Expected groups of at least 2 paths, got {rewards.shape[0]}; a group of one has no relative advantage. "
            "Raise group_size."
        )
    centred = rewards - rewards.mean(0, keepdim=True)
    # Rounding of the mean leaves dust on groups whose rewards are all equal; it must not be blown up by eps.
    equal = (rewards == rewards[:1]).all(0, keepdim=True)
    return torch.where(equal, 0.0, centred / (rewards.std(0, correction=1, keepdim=True) + eps))


@dataclass(frozen=True)
class Surrogate:
    """The clipped objective and how often it clipped.

    Attributes:
        objective: same shape as the inputs; to be maximised.
        ratio: probability ratio, detached.
        clipped_low: where the ratio fell below ``1 - clip_low`` with a negative advantage, detached.
        clipped_high: where it rose above ``1 + clip_high`` with a positive advantage, detached.
    """

    objective: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_low: float, clip_high: float
) -> Surrogate:
    """``min(r·A, clip(r, 1 - clip_low, 1 + clip_high)·A)`` with ``r = exp(log π - log π_old)`` (DAPO Eq. 10).

    Args:
        log_prob: of the taken actions under the current policy, any shape.
        old_log_prob: under the policy that took them, same shape.
        advantage: same shape.
        clip_low: ε_low.
        clip_high: ε_high.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    detached = ratio.detach()
    return Surrogate(
        objective=torch.minimum(ratio * advantage, clipped * advantage),
        ratio=detached,
        clipped_low=(detached < 1 - clip_low) & (advantage < 0),
        clipped_high=(detached > 1 + clip_high) & (advantage > 0),
    )


def kl_exact(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) over the last axis of two tables of log-probabilities: ``[..., K]`` twice to ``[...]``, in nats."""
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
