"""The built-in pixel terms, measured on the decoded video."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs.rewards.contract import PixelTerm
from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.tokenizer.perceptual import PerceptualDistance


@torch.no_grad()
def ssim(decoded: Tensor, clip: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), the mean over frames: ``[B]`` in [-1, 1]; 1 is equality.

    Args:
        decoded: ``float32 [B, C, T, H, W]``.
        clip: the original, of the same shape.
    """
    # Slow to import, and rarely needed.
    from torchmetrics.functional.image import structural_similarity_index_measure

    batch, _, frames = clip.shape[:3]
    shown, target = (video.transpose(1, 2).flatten(0, 1) for video in (decoded, clip))
    value = structural_similarity_index_measure(shown, target, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.view(batch, frames).mean(1)


def pixel_measures(
    reward: VaporReward, device: str | torch.device = "cpu", lpips: PixelTerm | None = None
) -> dict[str, PixelTerm]:
    """The measures on decoded video that a reward's terms need, by name, for ``ScoringEngine(distances=)``.

    Args:
        reward: the reward.
        device: of the videos.
        lpips: the network, if it is already loaded.

    Raises:
        FileNotFoundError: a network's weights are missing.
    """
    found: dict[str, PixelTerm] = {}
    if "lpips" in reward.needs:
        made = lpips or PerceptualDistance(reward.perceptual_network or "vgg", reward.perceptual_backbone).to(device)
        found["lpips"] = made
    if "ssim" in reward.needs:
        found["ssim"] = ssim
    return found | {name: term for name, term in reward.pixel_functions.items() if name in reward.needs}
