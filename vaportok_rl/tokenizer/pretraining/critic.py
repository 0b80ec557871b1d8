"""The discriminator's own side of adversarial training: its loss, optimiser and running averages."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.pretraining.adversarial import LeCamRegularizer, discriminator_loss
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.discriminator import Discriminator


class Critic:
    """Trains a discriminator on real clips against reconstructions.

    Args:
        model_config: geometry of the clips.
        config: learning rate, label smoothing, LeCam weight and gradient clipping.
        accelerator: of the run.
    """

    def __init__(self, model_config: VaporTokConfig, config: PretrainConfig, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        self.discriminator = Discriminator(model_config).to(accelerator.device)
        self.regularizer = LeCamRegularizer().to(accelerator.device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.9)
        )
        self._wrapped: nn.Module = accelerator.prepare(self.discriminator)
        # The tokenizer's loss runs through the discriminator but must leave no gradient in it.
        self.discriminator.requires_grad_(False)

    def compute_gradients(self, clips: Tensor, decoded: Tensor, parts: int, last: bool) -> dict[str, Tensor]:
        """Adds the gradients of one accumulated part and updates the running averages.

        Args:
            clips: ``uint8 [B, C, T, H, W]``, real.
            decoded: ``float32 [B, C, T, H, W]``, their reconstructions, detached.
            parts: number of accumulated parts.
            last: whether this is the last one, after which processes exchange gradients.

        Returns:
            Detached scalars by name.
        """
        self.discriminator.requires_grad_(True)
        both = torch.cat([clips.float() / 255, decoded])
        with (
            contextlib.nullcontext() if last else self.accelerator.no_sync(self._wrapped),
            torch.autocast(both.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"),
        ):
            real, fake = self._wrapped(both).float().chunk(2)
            loss = discriminator_loss(real, fake, self.config.label_smoothing)
            lecam = self.regularizer(real, fake)
            self.accelerator.backward((loss + self.config.lecam * lecam) / parts)
        self.discriminator.requires_grad_(False)
        means = self.accelerator.reduce(torch.stack([real.detach().mean(), fake.detach().mean()]), reduction="mean")
        self.regularizer.update(means[0], means[1])
        return {
            "discriminator": loss.detach(),
            "lecam": lecam.detach(),
            "logits_real": means[0],
            "logits_fake": means[1],
        }

    def update(self, learning_rate_factor: float) -> None:
        """One optimiser step; clears the gradients."""
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.discriminator_learning_rate * learning_rate_factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` reads back."""
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
