"""The built-in reward terms: pure functions of an outcome and of constants; more is better.

A term's keyword parameters are named as the constants in `RewardOptions`; `VaporReward` passes them by name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs.rewards.contract import needs
from vaportok_rl.envs.rewards.presets import Reduction, ThresholdUnit
from vaportok_rl.envs.scene import Outcome


def efficiency(outcome: Outcome) -> Tensor:
    """``1 - n / K``, the share of tokens saved: ``[G, P, L]`` in [0, 1)."""
    return 1 - outcome.n_tokens.float() / outcome.tokens


def penalty(
    outcome: Outcome,
    *,
    n_threshold: float,
    threshold_unit: ThresholdUnit,
    penalty_power: float,
    penalty_reduction: Reduction,
) -> Tensor:
    """Eq. 10: 0 from the threshold t on, ``-((t - n) / t)^penalty_power`` below: ``[G, P, L]``.

    Under the reduction ``sum`` each clip's penalty is multiplied by L, so that the mean over the path is the sum.
    """
    threshold: Tensor | float = n_threshold
    if threshold_unit == "K":
        threshold = n_threshold * outcome.tokens
    elif threshold_unit == "prior":
        threshold = n_threshold * outcome.prior_mean
    short = ((threshold - outcome.n_tokens).clamp(min=0) / threshold).float()
    charged = short**penalty_power
    return 0.0 - (charged * outcome.n_tokens.shape[-1] if penalty_reduction == "sum" else charged)


def diversity(outcome: Outcome, *, diversity_cap: float, diversity_scale: float) -> Tensor:
    """A path term: the standard deviation of ``n / K`` over a path's clips, capped, then scaled: ``[G, P]``."""
    spread = (outcome.n_tokens.float() / outcome.tokens).std(-1, correction=0)
    return diversity_scale * spread.clamp(max=diversity_cap)


def reconstruction(outcome: Outcome, *, scale: float) -> Tensor:
    """``-mse · scale``: ``[G, P, L]``, not above 0."""
    return -outcome.mse * scale


def generation(outcome: Outcome, *, generation_scale: float = 1.0) -> Tensor:
    """The prior's top-5 accuracy over kept tokens, scaled: ``[G, P, L]`` in [0, generation_scale]."""
    return outcome.accuracy * generation_scale


def log_mse(outcome: Outcome) -> Tensor:
    """``-log10(mse)``, which is the PSNR in units of 10 dB: ``[G, P, L]`` in [0, 10]."""
    return outcome.psnr / 10


@needs("lpips")
def lpips(outcome: Outcome) -> Tensor:
    """Minus the LPIPS distance of the decoded clip, averaged over frames: ``[G, P, L]``, not above 0."""
    return -outcome.measures["lpips"]


@needs("ssim")
def ssim(outcome: Outcome) -> Tensor:
    """Structural similarity of the decoded clip, the mean over frames: ``[G, P, L]`` in [-1, 1]."""
    return outcome.measures["ssim"]


@needs("bits")
def prior_bits(outcome: Outcome) -> Tensor:
    """Minus the bits that the prior needs for the kept tokens: ``[G, P, L]``, not above 0.

    The first token is not predicted and not counted, so keeping one token costs nothing. On nano a clip of K tokens has
    some hundreds of bits, so use weights of about 0.01.
    """
    return -outcome.measures["bits"]


def codebook_usage(outcome: Outcome) -> Tensor:
    """A path term: the number of different codes among the kept tokens, divided by its maximum L·K: ``[G, P]``.

    At `efficiency`'s weight, a token with a new code is free, and only repeats cost.
    """
    position = torch.arange(outcome.tokens, device=outcome.codes.device)
    kept = position < outcome.n_tokens[..., None]
    # Dropped tokens all become -1; in sorted order every new value but that one is a different code.
    ordered = torch.where(kept, outcome.codes, -1).flatten(2).sort(-1).values
    distinct = (ordered[..., 1:] != ordered[..., :-1]).sum(-1) + (ordered[..., 0] >= 0)
    return distinct / ordered.shape[-1]


def budget_overrun(outcome: Outcome, *, token_budget: int | None = None) -> Tensor:
    """A path term: minus the tokens kept beyond ``token_budget``, as a share of all L·K: ``[G, P]`` in (-1, 0].

    Without a budget, a quarter of L·K is free.
    """
    length = outcome.n_tokens.shape[-1]
    token_budget = token_budget or max(1, length * outcome.tokens // 4)
    over = (outcome.n_tokens.sum(-1) - token_budget).clamp(min=0)
    return 0.0 - over / (length * outcome.tokens)


FIVE_TERMS = {term.__name__: term for term in (efficiency, penalty, diversity, reconstruction, generation)}
FURTHER_TERMS = {term.__name__: term for term in (log_mse, lpips, ssim, prior_bits, codebook_usage, budget_overrun)}
