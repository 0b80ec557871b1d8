"""Lengths: the taildrop query module, the four strategies (supplement C.4), and the masks."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from vaportok_rl.tokenizer.config import Strategy, VaporTokConfig
from vaportok_rl.tokenizer.transformer import Transformer

LengthMixture = tuple[float, float, float]
"""Shares of the training lengths: drawn by the strategy, uniform on 1 … K, and all K tokens; they sum to 1."""

NOISE_COLUMNS = 3
"""Uniform numbers that `training_lengths` takes for each clip."""

# Prefix of the module's weights in a tokenizer's state.
TAILDROP_WEIGHTS = "taildrop_module."


class TaildropTrunk(nn.Module):
    """A learned query reads the latents through a small transformer: ``[B, K, D]`` to ``[B, D]``."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(width, heads, blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, latents: Tensor) -> Tensor:
        """``[B, K, D]`` to ``[B, D]``."""
        sequence = torch.cat([self.query.expand(latents.shape[0], -1, -1), latents], dim=1)
        out: Tensor = self.norm(self.transformer(sequence, wanted=slice(0, 1))[:, 0])
        return out


class TaildropQueryModule(nn.Module):
    """The policy: K logits and ``P = softmax(logits / temperature)`` (supplement E: two blocks, temperature 1.8)."""

    def __init__(self, config: VaporTokConfig) -> None:
        super().__init__()
        self.temperature = config.taildrop.temperature
        self.trunk = TaildropTrunk(config.width, config.heads, config.taildrop.blocks)
        self.head = nn.Linear(config.width, config.tokens)

    def forward(self, latents: Tensor) -> Tensor:
        """Log-probabilities of the lengths: ``[B, K, D]`` to ``float32 [B, K]``; entry a is n = a + 1."""
        log_p: Tensor = (self.head(self.trunk(latents)).float() / self.temperature).log_softmax(-1)
        return log_p

    def distribution(self, latents: Tensor) -> Categorical:
        """The distribution over actions; action a keeps n = a + 1 tokens."""
        return Categorical(logits=self(latents), validate_args=False)


def length_kl(log_p: Tensor, log_gaussian: Tensor) -> Tensor:
    """Probability prior (Eq. 8): KL(P ‖ Gaussian) per clip, ``[B, K]`` twice to ``[B]``, in nats."""
    return (log_p.exp() * (log_p - log_gaussian)).sum(-1)


@torch.no_grad()
def training_lengths(
    log_p: Tensor, strategy: Strategy, mixture: LengthMixture = (1.0, 0.0, 0.0), *, noise: Tensor
) -> Tensor:
    """Draws lengths for training.

    - ``naive``: uniform on 1 … K, independent of P.
    - ``argmax``: the most probable length.
    - ``sample``: drawn from P.
    - ``pre-sample``: drawn from P renormalised on the lengths up to *and including* the most probable one, so that
      there is something to draw from when that is n = 1.

    The mixture is not in the supplement, whose strategy is ``(1, 0, 0)``. It trains all lengths of all clips, because
    agents choose lengths that the complexity prior never proposes.

    All randomness is in ``noise``: a clip's length depends only on its row of ``log_p`` and ``noise``, so the draws do
    not depend on how a batch is split over ranks. Nothing is copied to the host.

    Args:
        log_p: ``[B, K]``, log-probabilities of the lengths; entry a is n = a + 1.
        strategy: one of the four above.
        mixture: probabilities that a clip's length is drawn by the strategy, uniformly from 1 … K, or is K.
        noise: ``float [B, 3]``, uniform in [0, 1), independent: column 0 draws from P, column 1 draws the uniform
            length, column 2 chooses which of the three.

    Returns:
        ``int64 [B]`` in 1 … K.

    Raises:
        ValueError: the strategy is unknown, the mixture is none, or a shape or type does not fit.
    """
    _check_strategy(strategy)
    check_mixture("mixture", mixture)
    batch, tokens = log_p.shape
    if noise.shape != (batch, NOISE_COLUMNS) or not noise.is_floating_point():
        raise ValueError(
            f"Expected noise of floats [{batch}, {NOISE_COLUMNS}], got {noise.dtype} of shape {tuple(noise.shape)}; "
            f"draw torch.rand({batch}, {NOISE_COLUMNS})."
        )
    uniform = (noise[:, 1] * tokens).long().clamp(max=tokens - 1)
    drawn = uniform if strategy == "naive" else _draw(log_p.float(), strategy, noise[:, 0])
    _, uniform_share, full_share = mixture
    drawn = torch.where(noise[:, 2] < uniform_share, uniform, drawn)
    return torch.where(noise[:, 2] >= 1 - full_share, tokens - 1, drawn) + 1


def check_mixture(name: str, mixture: LengthMixture) -> None:
    """Raises a `ValueError` unless the three shares are probabilities that sum to 1."""
    if not (len(mixture) == 3 and min(mixture) >= 0 and abs(sum(mixture) - 1) < 1e-6):
        raise ValueError(
            f"Expected {name} to be three shares ≥ 0 that sum to 1 (strategy, uniform, all K), got {mixture}; "
            "correct it."
        )


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
    # Scaling by the last sum renormalises, which also corrects rounding.
    reached = uniform[:, None] * cumulative[:, -1:] < cumulative
    chosen = torch.where(reached, actions, len(actions) - 1).amin(-1, keepdim=True)
    # A parallel cumulative sum may not be monotone to the last bit, so it may rise on a length of probability 0; such a
    # draw goes to the possible length before it.
    possible = torch.where(probabilities > 0, actions, 0).cummax(-1).values
    return possible.gather(1, chosen).squeeze(1)


def kept_tokens(n_tokens: Tensor, tokens: int) -> Tensor:
    """Marks the kept tokens ``0 … n - 1``.

    Args:
        n_tokens: ``int64 [...]`` in 1 … K.
        tokens: K, or any number of leading tokens.

    Returns:
        ``bool [..., tokens]``.
    """
    return torch.arange(tokens, device=n_tokens.device) < n_tokens[..., None]


def decoder_visible(n_tokens: Tensor, tokens: int, patches: int) -> Tensor:
    """Key mask of the decoder's sequence [latents; patch queries], Figure 2(a).

    Latents past ``n_tokens`` are never attended to; all patch queries are. The outputs at dropped positions are never
    read, so hiding keys is equivalent to removing the tokens.

    Args:
        n_tokens: ``int64 [B]`` in 1 … K.
        tokens: number of latents in the sequence.
        patches: number of patch queries.

    Returns:
        ``bool [B, tokens + patches]``.
    """
    kept = kept_tokens(n_tokens, tokens)
    return torch.cat([kept, kept.new_ones(kept.shape[0], patches)], dim=1)


def prior_supervised(n_tokens: Tensor, tokens: int) -> Tensor:
    """Marks the prior's predictions that count: row j predicts token j + 1, which must be kept.

    The mask depends on the *label's* index; the input's index would supervise one dropped token per clip.

    Args:
        n_tokens: ``int64 [...]`` in 1 … K.
        tokens: K.

    Returns:
        ``bool [..., K - 1]``.
    """
    return torch.arange(1, tokens, device=n_tokens.device) < n_tokens[..., None]
