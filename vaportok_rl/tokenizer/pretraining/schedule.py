"""The schedule of a run: learning rate, quantisation, lengths and scheduled sampling as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vaportok_rl.tokenizer.lengths import LengthMixture
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig


@dataclass(frozen=True)
class Phase:
    """The schedule's values at one step.

    Attributes:
        quantized_share: probability that a latent is quantised rather than left continuous.
        random_lengths: whether lengths are drawn; otherwise all K tokens are kept.
        sampling_ratio: fraction of the prior's inputs replaced by its own samples (scheduled sampling).
        sampling_rounds: passes of scheduled sampling.
        length_mixture: see `training_lengths`.
        adversarial: whether the discriminator is trained and used.
    """

    quantized_share: float
    random_lengths: bool
    sampling_ratio: float
    sampling_rounds: int = 2
    length_mixture: LengthMixture = (1.0, 0.0, 0.0)
    adversarial: bool = False


@dataclass(frozen=True)
class Schedule:
    """The schedule of a run, from its settings; steps count from 0."""

    config: PretrainConfig

    def phase(self, step: int) -> Phase:
        """All values that the loss needs at a step."""
        config = self.config
        return Phase(
            quantized_share=self.quantized_share(step),
            random_lengths=step >= config.random_lengths_from * config.steps,
            sampling_ratio=self.sampling_ratio(step),
            sampling_rounds=config.sampling_rounds,
            length_mixture=config.length_mixture,
            adversarial=config.weights.adversarial != 0 and step >= config.adversarial_from * config.steps,
        )

    def learning_rate_factor(self, step: int) -> float:
        """Learning rate as a fraction of its maximum: linear warm-up, plateau, half-cosine decay."""
        config, progress = self.config, (step + 1) / self.config.steps
        if progress < config.warmup:
            return progress / config.warmup
        if progress <= config.decay_from:
            return 1.0
        fallen = (progress - config.decay_from) / max(1e-9, 1 - config.decay_from)
        low = config.final_learning_rate
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * fallen))

    def revives_codes(self, step: int) -> bool:
        """Whether unused codes are moved after a step."""
        config = self.config
        return step % config.revive_every == 0 and step < config.decay_from * config.steps and not config.frozen_encoder

    def quantized_share(self, step: int) -> float:
        """Probability that a latent is quantised: 0 in the continuous phase, 1 from ``quantized_from``."""
        config, progress = self.config, step / self.config.steps
        if progress >= config.quantized_from:
            return 1.0
        span = max(1e-9, config.quantized_from - config.continuous_until)
        return min(1.0, max(0.0, (progress - config.continuous_until) / span))

    def sampling_ratio(self, step: int) -> float:
        """Fraction of the prior's inputs replaced by its own samples."""
        config = self.config
        since = step / config.steps - config.continuous_until
        return config.sampling_peak * min(1.0, max(0.0, since / max(1e-9, config.sampling_ramp)))
