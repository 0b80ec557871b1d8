"""Settings of a pretraining run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

import torch
import tyro

from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range, check_fields
from vaportok_rl.tokenizer.lengths import LengthMixture, check_mixture
from vaportok_rl.tokenizer.perceptual import PerceptualNetwork
from vaportok_rl.tokenizer.precision import PrecisionChoice, multiplies_bfloat16

_Weight = Annotated[float, NOT_NEGATIVE]
_Count = Annotated[int, AT_LEAST_1]
_Share = Annotated[float, SHARE]
_BelowOne = Annotated[float, Range(0, 1, open_high=True)]
_Rate = Annotated[float, POSITIVE]

_Value = TypeVar("_Value")
# Written in recipes, and seldom on a command line: an option that `--help` does not list.
_Rare = Annotated[_Value, tyro.conf.Suppress]


@dataclass(frozen=True)
class LossWeights:
    """Weights λ of the complete loss (Eq. 6 and 9).

    Attributes:
        l1: absolute reconstruction error, pixels in [0, 1].
        squared_error: squared reconstruction error; 0 in the supplement. The reward is a squared error.
        perceptual: LPIPS; needs the weights of its backbone. 0 trains without.
        adversarial: non-saturating loss of a discriminator, which is trained along. 0 trains without.
        commitment: of the quantiser: 0.25 · commitment + 1.0 · codebook, as in LARP.
        representation: cross-entropy of the prior on retained tokens; its gradient reaches the encoder.
        probability: KL(P ‖ Gaussian) of the taildrop module.
    """

    l1: _Weight = 1.0
    squared_error: _Weight = 2.0
    perceptual: _Weight = 0.0
    adversarial: _Weight = 0.0
    commitment: _Weight = 0.1
    representation: _Weight = 0.005
    probability: _Weight = 0.1

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one run; the defaults are those of the shipped nano weights.

    Points in time are fractions of the steps, so a shorter run keeps the proportions.

    Attributes:
        steps: optimiser steps.
        batch_size: clips per step, over all processes and accumulated parts.
        accumulate: parts that each process splits its clips into, to save memory. Statistics over a batch
            (``code_norm="batch"``, the mean over retained tokens) are then those of a part.
        seed: of initialisation, the order of clips and all random numbers.
        precision: of the transformers: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the
            device multiplies it in hardware, float32 elsewhere.
        muon_learning_rate: peak rate for matrices inside transformer blocks (Muon, RMS-matched to AdamW).
        adam_learning_rate: peak rate for everything else (AdamW).
        weight_decay: of both optimisers.
        warmup: fraction of the run in which the learning rates rise linearly.
        decay_from: fraction of the run after which the learning rates fall by a half cosine.
        final_learning_rate: end of the learning rates, as a fraction of their peaks.
        max_grad_norm: gradient clipping, of tokenizer and discriminator each.
        ema_decay: decay of the moving average of the weights, which is then validated and saved; 0 keeps no average.
        frozen_encoder: keep encoder and codebook of the warm start, so that codes are unchanged; decoder, prior and
            taildrop module are trained.
        continuous_until: fraction of the run with continuous latents at full length. Then the codebook is initialised.
        quantized_from: fraction of the run from which all latents are quantised; until then the probability rises.
        random_lengths_from: fraction of the run after which lengths are drawn by the taildrop strategy.
        length_mixture: shares of the drawn lengths: by the taildrop strategy, uniform on 1 … K, and all K tokens. The
            supplement's is 1 0 0; the others train lengths that the environment asks for and the strategy never draws.
        codebook_clips: clips whose latents initialise the codebook.
        revive_every: steps between moving unused codes to current latents; stops at ``decay_from``.
        sampling_peak: maximum fraction of the prior's inputs that its own samples replace.
        sampling_ramp: fraction of the run, from ``continuous_until`` on, over which that fraction rises.
        sampling_rounds: passes of the prior in scheduled sampling; 1 is teacher forcing.
        adversarial_from: fraction of the run after which the discriminator takes part.
        discriminator_learning_rate: peak rate of the discriminator (AdamW), on the tokenizer's schedule.
        label_smoothing: one-sided; the target of real clips is ``1 - label_smoothing``.
        lecam: weight of the LeCam regularisation of the discriminator.
        perceptual_network: backbone of LPIPS, ``"vgg"``, ``"alex"`` or ``"squeeze"``.
        perceptual_backbone: file with the backbone's weights; torch's cache if not given.
        calibration_clips: clips whose complexities calibrate the Gaussian prior of lengths.
        weights: of the loss terms.
        save_every: steps between checkpoints.
        validate_every: steps between validations.
    """

    steps: _Count = 3600
    batch_size: _Count = 40
    accumulate: _Count = 1
    seed: Annotated[int, SEED] = 0
    precision: PrecisionChoice = "auto"
    muon_learning_rate: _Rate = 3e-3
    adam_learning_rate: _Rate = 1e-3
    weight_decay: _Rare[_Weight] = 0.01
    warmup: _Rare[_Share] = 0.0278
    decay_from: _Rare[_Share] = 0.5278
    final_learning_rate: _Rare[_Share] = 0.02
    max_grad_norm: _Rare[Annotated[float, Range(0, open_low=True, infinite=True)]] = 1.0
    ema_decay: _Rare[_BelowOne] = 0.0
    frozen_encoder: bool = False
    continuous_until: _Rare[_Share] = 0.2083
    quantized_from: _Rare[_Share] = 0.3056
    random_lengths_from: _Rare[_Share] = 0.3472
    length_mixture: LengthMixture = (0.6, 0.4, 0.0)
    codebook_clips: _Rare[_Count] = 1024
    revive_every: _Rare[_Count] = 100
    sampling_peak: _Rare[_Share] = 0.5
    sampling_ramp: _Rare[_Share] = 0.4167
    sampling_rounds: _Rare[_Count] = 2
    adversarial_from: _Rare[_Share] = 0.35
    discriminator_learning_rate: _Rare[_Rate] = 3e-4
    label_smoothing: _Rare[_BelowOne] = 0.1
    lecam: _Rare[_Weight] = 0.001
    perceptual_network: _Rare[PerceptualNetwork] = "vgg"
    perceptual_backbone: _Rare[str | None] = None
    calibration_clips: _Rare[_Count] = 2048
    weights: LossWeights = field(default_factory=LossWeights)
    save_every: _Count = 200
    validate_every: _Count = 500

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.weights, LossWeights):
            raise TypeError(f"Expected weights to be LossWeights, got {self.weights!r}; name the terms in one.")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"Expected batch_size divisible by accumulate={self.accumulate}, got {self.batch_size}; change one."
            )
        check_mixture("length_mixture", self.length_mixture)
        if self.frozen_encoder and self.quantized_from > 0:
            raise ValueError(
                f"Expected quantized_from=0 with frozen_encoder, got {self.quantized_from}; fixed codes "
                "have no continuous phase."
            )
        phases = (self.continuous_until, self.quantized_from, self.random_lengths_from)
        if list(phases) != sorted(phases):
            raise ValueError(
                "Expected continuous_until ≤ quantized_from ≤ random_lengths_from, got "
                f"{phases[0]}, {phases[1]}, {phases[2]}; reorder the phases."
            )

    def decided(self, device: torch.device, begun: Mapping[str, Any] | None = None) -> PretrainConfig:
        """These settings with ``precision="auto"`` decided: as in the resumed run ``begun``, else by the device."""
        if self.precision != "auto":
            return self
        if begun is not None:
            return replace(self, precision=begun.get("precision", self.precision))
        return replace(self, precision="bfloat16" if multiplies_bfloat16(device) else "float32")
