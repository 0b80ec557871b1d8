"""The adversarial losses: L_GAN of Eq. 6 for the tokenizer, and what its discriminator minimises.

Logits are of any shape and large where a discriminator believes in a real clip. Everything stays on their device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    Raises:
        ValueError: the smoothing is outside [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"Expected label smoothing in [0, 1), got {smoothing}; 0.1 is usual.")
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

    Args:
        decay: of the running means; in [0, 1).

    Raises:
        ValueError: the decay is outside [0, 1).
    """

    ema_real: Tensor
    ema_fake: Tensor
    started: Tensor

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"Expected a decay in [0, 1), got {decay}; 0.999 is usual.")
        self.decay = decay
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
            average.copy_(torch.where(self.started, self.decay * average + (1 - self.decay) * mean, mean))
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
