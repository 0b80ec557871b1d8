"""A transformer that tells real clips from reconstructions, patch by patch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from torch import Tensor, nn

from vaportok_rl.tokenizer.blocks import Transformer
from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.model import OutputLayer, PatchEmbedding
from vaportok_rl.tokenizer.positions import patch_table


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminator; the defaults are LARP's.

    Attributes:
        width: channels; divisible by 4 (sin-cos positions) and by ``heads``.
        depth: transformer blocks.
        heads: attention heads.

    Raises:
        ValueError: a size is not positive or does not divide.
    """

    width: int = 384
    depth: int = 8
    heads: int = 12

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % math.lcm(4, self.heads):
            raise ValueError(
                "Expected a discriminator of positive sizes whose width is divisible by 4 and by its heads, got width "
                f"{self.width}, depth {self.depth}, heads {self.heads}; correct them."
            )

    @classmethod
    def for_tokenizer(cls, config: VaporTokConfig) -> DiscriminatorConfig:
        """LARP's proportions: half the tokenizer's width, two thirds of its encoder's depth, as many heads.

        ``vaportok-b`` and ``larp-l`` get LARP's own 384 × 8 × 12; an odd half is rounded up to what the heads divide.
        """
        step = math.lcm(4, config.heads)
        return cls(
            width=step * math.ceil(config.width / (2 * step)),
            depth=max(1, round(config.encoder_depth * 2 / 3)),
            heads=config.heads,
        )


class Discriminator(nn.Module):
    """A pre-norm transformer over the tokenizer's space-time patches with one logit a patch.

    LARP reads one logit off a class token. Here every patch is judged, in the context of the whole clip: the same
    trunk gives P training signals a clip, and the generator learns where it was caught. The head starts at zero, so
    that an untrained discriminator has no opinion and pushes the decoder nowhere.

    Args:
        config: geometry of the clips and their patches.
        sizes: of the transformer; None derives them, see `DiscriminatorConfig.for_tokenizer`.
    """

    def __init__(self, config: VaporTokConfig, sizes: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.sizes = DiscriminatorConfig.for_tokenizer(config) if sizes is None else sizes
        self.clip_shape = config.clip_shape
        self.x_embedder = PatchEmbedding(dataclasses.replace(config, width=self.sizes.width, heads=self.sizes.heads))
        self.register_buffer("patch_positions", patch_table(self.sizes.width, config.grid), persistent=False)
        self.trunk = Transformer(self.sizes.width, self.sizes.heads, self.sizes.depth)
        self.head = OutputLayer(self.sizes.width, 1)
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
        """Judges clips.

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
