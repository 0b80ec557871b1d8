"""The data that flows through the decision process: scenes in, outcomes out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """P scenes of L encoded clips each, on the device. Clips do not depend on actions.

    Attributes:
        latents: ``float32 [P, L, K, D]``.
        codes: ``int64 [P, L, K]``.
        hits: ``float32 [P, L, K]``; entry n - 1 counts the prior's top-5 hits among the tokens 1 … n - 1.
        complexity: ``float32 [P, L, 2]``, SC in bits and TC in grey levels.
        clips: ``uint8 [P, L, C, T, H, W]``.
        labels: ``int64 [P, L]``.
        ids: ``int64 [P, L]``.
    """

    latents: Tensor
    codes: Tensor
    hits: Tensor
    complexity: Tensor
    clips: Tensor
    labels: Tensor
    ids: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """``(P, L)``."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def tokens(self) -> int:
        """K."""
        return self.codes.shape[2]

    def at(self, paths: Tensor, steps: Tensor) -> Scene:
        """One clip of each chosen scene.

        Args:
            paths: ``int64 [P']``, scene numbers.
            steps: ``int64 [P']``, position in each.

        Returns:
            A scene of shape ``(P', 1)``.
        """
        return Scene(*(getattr(self, field.name)[paths, steps][:, None] for field in fields(self)))

    def replace_paths(self, paths: Tensor, new: Scene) -> Scene:
        """A copy in which the chosen scenes are those of ``new`` (in order)."""
        replaced = {}
        for field in fields(self):
            value = getattr(self, field.name).clone()
            value[paths] = getattr(new, field.name)
            replaced[field.name] = value
        return Scene(**replaced)


def join_scenes(scenes: list[Scene]) -> Scene:
    """Stacks scenes of equal path length along P."""
    return Scene(*(torch.cat([getattr(scene, field.name) for scene in scenes]) for field in fields(Scene)))


@dataclass(frozen=True)
class Outcome:
    """What keeping ``n_tokens`` did to each clip, for G paths through each of P scenes.

    Attributes:
        n_tokens: ``int64 [G, P, L]`` in 1 … K.
        mse: ``float32 [G, P, L]``, mean squared error of the decoded clip, pixels in [0, 1].
        accuracy: ``float32 [G, P, L]``, the prior's top-5 accuracy over the kept, predicted tokens; 0 where n = 1.
        complexity: ``float32 [P, L, 2]``, SC and TC.
        tokens: K.
    """

    n_tokens: Tensor
    mse: Tensor
    accuracy: Tensor
    complexity: Tensor
    tokens: int

    @property
    def psnr(self) -> Tensor:
        """``float32 [G, P, L]`` in decibels, with a floor of 1e-10 under the error (100 dB)."""
        return -10 * torch.log10(self.mse.clamp(min=1e-10))

    def take(self, n_tokens: Tensor) -> Outcome:
        """Reads other lengths out of an outcome that holds every length.

        Args:
            n_tokens: ``int64 [G', P, L]`` in 1 … K.

        Returns:
            The outcome of those lengths, looked up in this one, whose row g must hold n = g + 1 for all g < K.
        """
        rows = n_tokens - 1
        return Outcome(n_tokens, self.mse.gather(0, rows), self.accuracy.gather(0, rows), self.complexity, self.tokens)
