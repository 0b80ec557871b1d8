"""Reward terms beside the five of the supplement: off until a weight names them. More is better in every one."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs.rewards.contract import needs
from vaportok_rl.envs.scene import Outcome

FURTHER_TERMS = ("log_mse", "lpips", "prior_bits", "codebook_usage", "budget_overrun")


def log_mse(outcome: Outcome) -> Tensor:
    """``-log10(mse)``, which is the PSNR in units of 10 dB: ``[G, P, L]`` in [0, 10]."""
    return outcome.psnr / 10


@needs("lpips")
def lpips(outcome: Outcome) -> Tensor:
    """Minus the LPIPS distance of the decoded clip, averaged over frames: ``[G, P, L]``, not above 0."""
    return -outcome.measures["lpips"]


@needs("bits")
def prior_bits(outcome: Outcome) -> Tensor:
    """Minus the bits that the prior needs for the kept tokens: ``[G, P, L]``, not above 0.

    The first token has nothing before it to be predicted from and is not counted, so keeping one token costs nothing.
    On nano a clip of K tokens spans some hundreds of bits: weights of the order of 0.01 put the term beside the others.
    """
    return -outcome.measures["bits"]


def codebook_usage(outcome: Outcome) -> Tensor:
    """A path term: how many different codes the kept tokens use, as a share of the L·K a path could: ``[G, P]``.

    Weighted like `efficiency`, it refunds what a token costs when its code is new on the path: only repeats then cost.
    """
    position = torch.arange(outcome.tokens, device=outcome.codes.device)
    kept = position < outcome.n_tokens[..., None]
    # Dropped tokens all become -1; in sorted order every new value but that one is a different code.
    ordered = torch.where(kept, outcome.codes, -1).flatten(2).sort(-1).values
    distinct = (ordered[..., 1:] != ordered[..., :-1]).sum(-1) + (ordered[..., 0] >= 0)
    return distinct / ordered.shape[-1]


def budget_overrun(outcome: Outcome, token_budget: int) -> Tensor:
    """A path term: minus the tokens kept beyond ``token_budget``, as a share of all L·K: ``[G, P]`` in (-1, 0]."""
    length = outcome.n_tokens.shape[-1]
    over = (outcome.n_tokens.sum(-1) - token_budget).clamp(min=0)
    return 0.0 - over / (length * outcome.tokens)
