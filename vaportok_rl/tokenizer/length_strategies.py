"""How many tokens a clip keeps in training and at inference: the four taildrop strategies (supplement C.4)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["naive", "argmax", "sample", "pre-sample"]

NOISE_COLUMNS = 3
"""Uniform numbers that `training_lengths` takes for each clip."""


@torch.no_grad()
def training_lengths(
    log_p: Tensor, strategy: Strategy, *, uniform_share: float = 0.0, full_share: float = 0.0, noise: Tensor
) -> Tensor:
    """Draws the lengths to train with.

    - ``naive``: uniform on 1 … K, whatever P says.
    - ``argmax``: the most probable length.
    - ``sample``: drawn from P.
    - ``pre-sample``: drawn from P renormalised on the lengths up to *and including* the most probable one, so that
      there is something to draw from when that is n = 1.

    The two shares are no part of the supplement, and 0 is its pure strategy: they keep every length trained for every
    clip, because the environment asks for lengths that the complexity prior never proposes.

    All randomness comes in through ``noise``: a clip's length depends on its own row of ``log_p`` and ``noise`` only,
    so the draws do not depend on how a batch is spread over processes. Nothing is read back from the device.

    Args:
        log_p: ``[B, K]``, log-probabilities of the lengths; entry a is n = a + 1.
        strategy: one of the four above.
        uniform_share: probability that a clip's length is drawn uniformly from 1 … K instead.
        full_share: probability that all K tokens are kept instead.
        noise: ``float [B, 3]``, uniform in [0, 1), independent: column 0 draws from P, column 1 draws the uniform
            length, column 2 chooses between the strategy and the two shares.

    Returns:
        ``int64 [B]`` in 1 … K.

    Raises:
        ValueError: the strategy is unknown, a share or their sum is outside 0 … 1, or a shape or type does not fit.
    """
    _check_strategy(strategy)
    if not (uniform_share >= 0 and full_share >= 0 and uniform_share + full_share <= 1):
        raise ValueError(
            f"Expected uniform_share and full_share ≥ 0 with a sum ≤ 1, got {uniform_share} and {full_share}; "
            "the strategy has the rest."
        )
    batch, tokens = log_p.shape
    if noise.shape != (batch, NOISE_COLUMNS) or not noise.is_floating_point():
        raise ValueError(
            f"Expected noise of floats [{batch}, {NOISE_COLUMNS}], got {noise.dtype} of shape {tuple(noise.shape)}; "
            f"draw torch.rand({batch}, {NOISE_COLUMNS})."
        )
    uniform = (noise[:, 1] * tokens).long().clamp(max=tokens - 1)
    drawn = uniform if strategy == "naive" else _draw(log_p.float(), strategy, noise[:, 0])
    drawn = torch.where(noise[:, 2] < uniform_share, uniform, drawn)
    return torch.where(noise[:, 2] >= 1 - full_share, tokens - 1, drawn) + 1


@torch.no_grad()
def inference_lengths(log_p: Tensor, strategy: Strategy) -> Tensor:
    """Lengths at inference, by the strategy that the tokenizer was trained with.

    A ``naive`` tokenizer keeps all K tokens (or see `error_threshold.lengths_under_error`), a probabilistic one those
    up to the argmax of P.

    Args:
        log_p: ``[B, K]``, log-probabilities of the lengths; entry a is n = a + 1.
        strategy: see `training_lengths`.

    Returns:
        ``int64 [B]`` in 1 … K.

    Raises:
        ValueError: the strategy is unknown.
    """
    _check_strategy(strategy)
    if strategy == "naive":
        return torch.full(log_p.shape[:1], log_p.shape[1], device=log_p.device)
    return log_p.argmax(-1) + 1


def _check_strategy(strategy: str) -> None:
    if strategy not in get_args(Strategy):
        raise ValueError(
            f"Expected a taildrop strategy among {', '.join(map(repr, get_args(Strategy)))}, got {strategy!r}; "
            "choose one of them."
        )


def _draw(log_p: Tensor, strategy: Strategy, uniform: Tensor) -> Tensor:
    """Actions of a probabilistic strategy: ``[B, K]`` and ``[B]`` in [0, 1) to ``int64 [B]`` in 0 … K - 1."""
    most_probable = log_p.argmax(-1)
    if strategy == "argmax":
        return most_probable
    actions = torch.arange(log_p.shape[1], device=log_p.device)
    probabilities = log_p.exp()
    if strategy == "pre-sample":
        probabilities = torch.where(actions <= most_probable[:, None], probabilities, 0)
    cumulative = probabilities.cumsum(-1)
    # Scaling by the last sum renormalises, and makes up for what rounding took from it.
    reached = uniform[:, None] * cumulative[:, -1:] < cumulative
    chosen = torch.where(reached, actions, len(actions) - 1).amin(-1, keepdim=True)
    # A parallel cumulative sum need not be monotone to the last bit, so it may seem to rise on a length of probability
    # 0: such a length passes its draws to the possible one before it.
    possible = torch.where(probabilities > 0, actions, 0).cummax(-1).values
    return possible.gather(1, chosen).squeeze(1)
