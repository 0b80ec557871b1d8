"""The complete loss of one batch (Eq. 6–9) and the metrics that are logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaportok_rl.tokenizer.complexity import clip_complexity
from vaportok_rl.tokenizer.lengths import NOISE_COLUMNS, length_kl, prior_supervised, training_lengths
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.adversarial import generator_loss
from vaportok_rl.tokenizer.pretraining.config import LossWeights
from vaportok_rl.tokenizer.pretraining.schedule import Phase
from vaportok_rl.tokenizer.prior import (
    cumulative_hits,
    prior_loss,
    scheduled_sampling_logits,
    top_k_accuracy,
)
from vaportok_rl.tokenizer.quantizer import Uniform

# Groups of clips of similar length that are decoded apart, each at the length of its longest.
LENGTH_GROUPS = 4


@dataclass(frozen=True)
class StepResult:
    """The loss of a batch and its terms.

    Attributes:
        loss: scalar, with gradient.
        terms: detached scalars by name.
        codes: ``int64 [B, K]``, or None while latents are continuous.
        unit: ``[B, K, d]``, detached unit latents.
        decoded: ``float32 [B, C, T, H, W]``, detached reconstruction, not clamped.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    codes: Tensor | None
    unit: Tensor
    decoded: Tensor


class CompleteLoss(nn.Module):
    """The complete loss (Eq. 9) as a module over the tokenizer, so that one forward pass computes it.

    Args:
        model: in training mode.
        weights: λ of every term.
        perceptual: LPIPS of two videos, ``[B, C, T, H, W]`` twice to ``[B]``; None leaves the term out.
        discriminator: patch logits of videos; None leaves the adversarial term out.
        over_processes: averages a scalar over the processes of the run; the identity on one.
        sampled_codes: draw codes at the codebook's temperature rather than take the nearest.
    """

    def __init__(
        self,
        model: VaporTok,
        weights: LossWeights,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        discriminator: nn.Module | None = None,
        over_processes: Callable[[Tensor], Tensor] = lambda value: value,
        sampled_codes: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.weights = weights
        # In tuples, so that these networks are not submodules: they are not trained with this loss.
        self._critics = (perceptual, discriminator)
        self._over_processes = over_processes
        self._sampled_codes = sampled_codes

    def forward(self, clips: Tensor, phase: Phase, uniform: Uniform) -> StepResult:
        """Evaluates the loss.

        Args:
            clips: ``uint8 [B, C, T, H, W]`` on the model's device.
            phase: the schedule's values at the step.
            uniform: draws the batch's uniform numbers, ``[B, ...]``; see `noise.ClipNoise.uniform`.
        """
        model, config = self.model, self.model.config
        video = clips.float() / 255
        with model.autocast():
            latents = model.encoder_latents(video)
        log_gaussian = model.complexity_scale.gaussian_prior(clip_complexity(clips))
        with model.autocast():
            log_p = model.taildrop_module(latents.detach() if config.taildrop.stop_gradient else latents)
        n_tokens = torch.full((clips.shape[0],), config.tokens, device=clips.device)
        if phase.random_lengths:
            n_tokens = training_lengths(
                log_p,
                config.taildrop.strategy,
                phase.length_mixture,
                noise=uniform(torch.Size((clips.shape[0], NOISE_COLUMNS))),
            )
        # The loss terms under the names of their weights, and metrics that are only logged.
        terms: dict[str, Tensor] = {}
        watched: dict[str, Tensor] = {}
        codes: Tensor | None = None
        if phase.quantized_share > 0:
            vectors, unit, codes = self._quantized(latents, n_tokens, phase, uniform, terms, watched)
        else:
            unit = model.bottleneck.to_unit(latents)
            vectors = unit
        with model.autocast():
            decoded = self._decoded(vectors, n_tokens) if phase.random_lengths else model.reconstruct(vectors)
        terms["l1"] = F.l1_loss(decoded, video)
        terms["squared_error"] = F.mse_loss(decoded, video)
        perceptual, discriminator = self._critics
        if perceptual is not None:
            terms["perceptual"] = perceptual(decoded, video).mean()
        if discriminator is not None and phase.adversarial:
            with model.autocast():
                terms["adversarial"] = generator_loss(discriminator(decoded))
        terms["probability"] = length_kl(log_p, log_gaussian).mean()

        watched["tokens"] = n_tokens.float().mean()
        weighted = (getattr(self.weights, name) * value for name, value in terms.items())
        loss = sum(weighted, start=torch.zeros((), device=clips.device))
        watched |= {name: value.detach() for name, value in {**terms, "loss": loss}.items()}
        return StepResult(loss, watched, codes, unit.detach(), decoded.detach())

    def _decoded(self, vectors: Tensor, n_tokens: Tensor) -> Tensor:
        """Decodes the first tokens of each clip; on a CPU without what all clips of similar length drop."""
        if vectors.device.type != "cpu":  # reading the lengths would stall the stream
            return self.model.reconstruct(vectors, n_tokens)
        order = n_tokens.argsort(stable=True)
        parts = []
        for group in order.chunk(LENGTH_GROUPS):
            longest = int(n_tokens[group[-1]])
            parts.append(self.model.reconstruct(vectors[group, :longest], n_tokens[group]))
        return torch.cat(parts)[order.argsort()]

    def _quantized(
        self,
        latents: Tensor,
        n_tokens: Tensor,
        phase: Phase,
        uniform: Uniform,
        terms: dict[str, Tensor],
        watched: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises, adds the terms that need codes, and returns decoder vectors, unit latents and codes."""
        model, book = self.model, self.model.bottleneck.regularizer
        quantized = model.bottleneck.quantize(latents, uniform if self._sampled_codes else None)
        unit, codes = quantized.unit, quantized.codes
        take = uniform(codes.shape) < phase.quantized_share
        vectors = torch.where(take[..., None], quantized.vectors, unit)
        own = book.lookup(codes)
        # 0.25 and 1 as in LARP.
        terms["commitment"] = 0.25 * F.mse_loss(unit, own.detach()) + F.mse_loss(own, unit.detach())
        with model.autocast():
            rounds = scheduled_sampling_logits(
                model.prior_model,
                quantized.vectors,
                book.unit_codes(),
                phase.sampling_ratio,
                rounds=phase.sampling_rounds,
                uniform=uniform,
            )
        # Eq. 7 is a mean over tokens, of which the processes hold different numbers.
        count = self._over_processes(prior_supervised(n_tokens, codes.shape[1]).sum().float())
        terms["representation"] = torch.stack([prior_loss(logits, codes, n_tokens, count) for logits in rounds]).mean()
        hits = cumulative_hits(rounds[0].detach(), codes)
        watched["prior_top5"] = top_k_accuracy(hits, n_tokens).mean()
        return vectors, unit, codes
