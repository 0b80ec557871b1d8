"""The complete loss of one batch (Eq. 6–9) and the numbers worth watching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.tokenizer.complexity import clip_complexity
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.config import LossWeights
from vaportok_rl.tokenizer.prior import cumulative_hits, prior_loss, scheduled_sampling_logits, top_k_accuracy
from vaportok_rl.tokenizer.taildrop import length_kl, sample_lengths


@dataclass(frozen=True)
class Phase:
    """What the schedule asks of one step.

    Attributes:
        quantized_share: chance that a latent is quantised rather than continuous.
        random_lengths: whether lengths are drawn; otherwise all K tokens are kept.
        sampling_ratio: of the prior's scheduled sampling.
        uniform_lengths: see `taildrop.sample_lengths`.
        full_lengths: see `taildrop.sample_lengths`.
    """

    quantized_share: float
    random_lengths: bool
    sampling_ratio: float
    uniform_lengths: float
    full_lengths: float = 0.0


@dataclass(frozen=True)
class StepResult:
    """The loss of a batch and what it was made of.

    Attributes:
        loss: scalar, with gradient.
        terms: detached scalars by name.
        codes: ``int64 [B, K]``, or None while latents are continuous.
        unit: ``[B, K, d]``, detached unit latents.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    codes: Tensor | None
    unit: Tensor


def complete_loss(model: VaporTok, clips: Tensor, weights: LossWeights, phase: Phase) -> StepResult:
    """Evaluates the complete loss.

    Args:
        model: in training mode.
        clips: ``uint8 [B, C, T, H, W]`` on the model's device.
        weights: λ of every term.
        phase: where in the schedule we are.
    """
    video = clips.float() / 255
    tokens = model.config.tokens
    with model.autocast():
        latents = model.encoder_latents(video)
    complexity = clip_complexity(clips)
    log_gaussian = model.complexity_scale.gaussian_prior(complexity)
    with model.autocast():
        policy_input = latents.detach() if model.config.taildrop.stop_gradient else latents
        log_p = model.taildrop_module(policy_input)
    if phase.random_lengths:
        n_tokens = sample_lengths(log_p, phase.uniform_lengths, phase.full_lengths)
    else:
        n_tokens = torch.full((clips.shape[0],), tokens, device=clips.device)

    terms: dict[str, Tensor] = {}
    codes: Tensor | None = None
    if phase.quantized_share > 0:
        quantized = model.bottleneck.quantize(latents, sample=True)
        unit, codes = quantized.unit, quantized.codes
        take = torch.rand(codes.shape, device=codes.device) < phase.quantized_share
        vectors = torch.where(take[..., None], quantized.vectors, unit)
        book = model.bottleneck.regularizer.lookup(codes)
        commitment = 0.25 * F.mse_loss(unit, book.detach()) + F.mse_loss(book, unit.detach())
        terms["commitment"] = commitment
        with model.autocast():
            rounds = scheduled_sampling_logits(
                model.prior_model,
                quantized.vectors,
                model.bottleneck.regularizer.unit_codes(),
                phase.sampling_ratio,
                uniform=lambda shape: torch.rand(shape, device=codes.device),
            )
        terms["representation"] = torch.stack([prior_loss(logits, codes, n_tokens) for logits in rounds]).mean()
        hits = cumulative_hits(rounds[0].detach(), codes)
        terms["prior_top5"] = top_k_accuracy(hits, n_tokens).mean()
    else:
        unit = model.bottleneck.to_unit(latents)
        vectors = unit
    with model.autocast():
        decoded = model.reconstruct(vectors, n_tokens if phase.random_lengths else None)
    terms["l1"] = F.l1_loss(decoded, video)
    terms["squared_error"] = F.mse_loss(decoded, video)
    terms["probability"] = length_kl(log_p, log_gaussian).mean()

    loss = sum(
        (getattr(weights, name) * value for name, value in terms.items() if hasattr(weights, name)),
        start=torch.zeros((), device=clips.device),
    )
    watched = {name: value.detach() for name, value in terms.items()}
    watched["loss"] = loss.detach()
    watched["tokens"] = n_tokens.float().mean()
    return StepResult(loss, watched, codes, unit.detach())
