"""Adversarial training: the losses of both sides, the discriminator, and its training.

Logits have any shape; a large logit means "real".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.transformer import OutputLayer, PatchEmbedding, Transformer, patch_table

# Of the running mean logits, as in LARP.
LECAM_DECAY = 0.999


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the tokenizer, −log σ(D(x̂)) (Goodfellow et al. 2014, section 3).

    Args:
        fake_logits: of reconstructions, with gradient.

    Returns:
        Scalar ``float32``, the mean over logits.
    """
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.1) -> Tensor:
    """Binary cross-entropy with single-sided label smoothing (Salimans et al. 2016, section 3.4).

    Real clips have the target ``1 - smoothing``, reconstructions stay at 0: smoothing those too would reward the
    discriminator for calling bad reconstructions a little real.

    Args:
        real_logits: of real clips.
        fake_logits: of reconstructions that carry no gradient to the tokenizer.
        smoothing: in [0, 1); the best logit of a real clip is ``log((1 - smoothing) / smoothing)`` instead of ∞.

    Returns:
        Scalar ``float32``: the mean over real logits plus the mean over fake ones.
    """
    real, fake = real_logits.float(), fake_logits.float()
    real_loss = F.binary_cross_entropy_with_logits(real, torch.full_like(real, 1 - smoothing))
    return real_loss + F.softplus(fake).mean()


class LeCamRegularizer(nn.Module):
    """LeCam regularisation of a discriminator (Tseng et al. 2021).

    Ties the logits of each side to the running mean α of the other: R = E[(D(x) − α_F)₊²] + E[(α_R − D(x̂))₊²]. The
    paper writes the squares without the positive part, its authors' code (and LARP's) has it, and so has this: the two
    agree while real clips score above reconstructions, and where they do not, the positive part leaves it to the
    cross-entropy to part them. The mean is over logits, as in the paper, not of one mean logit, as in LARP.

    The running means are buffers, so they travel in checkpoints; the first update sets them.
    """

    ema_real: Tensor
    ema_fake: Tensor
    started: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Moves the running means.

        Args:
            real_mean: scalar, mean logit of real clips; over all processes where there are several.
            fake_mean: scalar, the same of reconstructions.
        """
        for average, mean in ((self.ema_real, real_mean.float()), (self.ema_fake, fake_mean.float())):
            # A selection, because reading `started` on the host would stall an accelerator.
            average.copy_(torch.where(self.started, LECAM_DECAY * average + (1 - LECAM_DECAY) * mean, mean))
        self.started.fill_(True)

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The regularisation R.

        Args:
            real_logits: of real clips, with gradient to the discriminator.
            fake_logits: of reconstructions, likewise.

        Returns:
            Scalar ``float32``; 0 until the first `update`.
        """
        above = F.relu(real_logits.float() - self.ema_fake)
        below = F.relu(self.ema_real - fake_logits.float())
        # The conversion also copies: `update` may change `started` in place before the backward pass.
        return (above.square().mean() + below.square().mean()) * self.started.float()


def discriminator_sizes(config: VaporTokConfig) -> tuple[int, int, int]:
    """Width, depth and heads in LARP's proportions: half the width, two thirds of the encoder's depth, as many heads.

    ``vaportok-b`` and ``larp-l`` get LARP's own 384 × 8 × 12. The width is rounded up to a multiple of 4 (sin-cos
    positions) and of the heads.
    """
    step = math.lcm(4, config.heads)
    depth = max(1, round(config.encoder_depth * 2 / 3))
    return step * math.ceil(config.width / (2 * step)), depth, config.heads


class Discriminator(nn.Module):
    """A pre-norm transformer over the tokenizer's space-time patches with one logit per patch.

    LARP's discriminator has one logit, from a class token. Here every patch has one, in the context of the whole clip:
    the same trunk gives P training signals per clip, and the generator learns which patches failed. The head starts at
    zero, so an untrained discriminator gives the decoder no gradient.

    Args:
        config: of the tokenizer: geometry of the clips and their patches; see `discriminator_sizes`.
    """

    def __init__(self, config: VaporTokConfig) -> None:
        super().__init__()
        width, depth, heads = discriminator_sizes(config)
        self.clip_shape = config.clip_shape
        self.x_embedder = PatchEmbedding(dataclasses.replace(config, width=width, heads=heads))
        self.register_buffer("patch_positions", patch_table(width, config.grid), persistent=False)
        self.trunk = Transformer(width, heads, depth)
        self.head = OutputLayer(width, 1)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier-uniform linears, biases and head at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.xavier_uniform_(module.weight.flatten(1))  # a view: the convolution counts as linear
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.linear.weight)

    def forward(self, clips: Tensor) -> Tensor:
        """Patch logits of clips.

        Args:
            clips: ``float [B, C, T, H, W]``, pixels nominally in [0, 1], not clamped.

        Returns:
            ``float32 [B, P]``, logits of "this patch is real", row-major over (time, height, width).

        Raises:
            ValueError: the clips are of another geometry.
        """
        if clips.dim() != 5 or tuple(clips.shape[1:]) != self.clip_shape:
            raise ValueError(
                f"Expected clips of shape [B, {', '.join(map(str, self.clip_shape))}], got {tuple(clips.shape)}; "
                "build the discriminator with the configuration of the tokenizer."
            )
        patches = self.x_embedder(clips * 2 - 1) + self.get_buffer("patch_positions")
        logits: Tensor = self.head(self.trunk(patches))
        return logits.squeeze(-1).float()


class Critic:
    """Trains a discriminator on real clips against reconstructions.

    Args:
        model_config: geometry of the clips.
        config: learning rate, label smoothing, LeCam weight and gradient clipping.
        device: of the discriminator.
        processes: of the run.

    In each step: `zero_grad`, `compute_gradients` for each accumulated part, the sum of the gradients over processes,
    `clip_gradients`, `update`.
    """

    def __init__(
        self, model_config: VaporTokConfig, config: PretrainConfig, device: torch.device, processes: Processes
    ) -> None:
        self.config, self.processes = config, processes
        self.discriminator = Discriminator(model_config).to(device)
        self.regularizer = LeCamRegularizer().to(device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.9)
        )
        self._means: list[Tensor] = []
        # The tokenizer's loss passes through the discriminator but must leave no gradient in it.
        self.discriminator.requires_grad_(False)

    def compute_gradients(self, clips: Tensor, decoded: Tensor, parts: int) -> dict[str, Tensor]:
        """Adds the gradients of one accumulated part.

        Args:
            clips: ``uint8 [B, C, T, H, W]``, real.
            decoded: ``float32 [B, C, T, H, W]``, their reconstructions, detached.
            parts: number of accumulated parts, of all processes.

        Returns:
            Detached scalars by name.
        """
        self.discriminator.requires_grad_(True)
        both = torch.cat([clips.float() / 255, decoded])
        with torch.autocast(both.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            real, fake = self.discriminator(both).float().chunk(2)
            loss = discriminator_loss(real, fake, self.config.label_smoothing)
            lecam = self.regularizer(real, fake)
            ((loss + self.config.lecam * lecam) / parts).backward()
        self.discriminator.requires_grad_(False)
        means = self.processes.mean(torch.stack([real.mean(), fake.mean()]))
        self._means.append(means)
        return {
            "discriminator": loss.detach(),
            "lecam": lecam.detach(),
            "logits_real": means[0],
            "logits_fake": means[1],
        }

    def zero_grad(self) -> None:
        """Clears the gradients and mean logits of an earlier step."""
        self.optimizer.zero_grad(set_to_none=True)
        self._means = []

    def clip_gradients(self) -> Tensor:
        """Clips the gradients; returns their norm before."""
        return torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.config.max_grad_norm)

    def update(self, learning_rate_factor: float) -> None:
        """One optimiser step, and one of the running averages; clears the gradients."""
        self.regularizer.update(*torch.stack(self._means).mean(0))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.discriminator_learning_rate * learning_rate_factor
        self.optimizer.step()
        self.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "regularizer": self.regularizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the discriminator, its averages and its optimiser."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.regularizer.load_state_dict(state["regularizer"])
        self.optimizer.load_state_dict(state["optimizer"])
