"""The data of the MDP: scenes go in, outcomes come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """P scenes of L encoded clips each, on the device. Actions never change which clips come.

    Attributes:
        latents: ``float32 [P, L, K, D]``.
        codes: ``int64 [P, L, K]``.
        hits: ``float32 [P, L, K]``; entry n - 1 counts the prior's top-5 hits among the tokens 1 … n - 1.
        complexity: ``float32 [P, L, 2]``, SC in bits and TC in grey levels.
        clips: ``uint8 [P, L, C, T, H, W]``.
        labels: ``int64 [P, L]``.
        ids: ``int64 [P, L]``.
        bits: ``float32 [P, L, K]``; entry n - 1 is the prior's negative log-likelihood of the tokens 1 … n - 1. Empty,
            ``[P, L, 0]``, unless the engine has ``bits=True``.
        prior_mean: ``float32 [P, L]``, mean of the clip's Gaussian length prior, in tokens.
    """

    latents: Tensor
    codes: Tensor
    hits: Tensor
    complexity: Tensor
    clips: Tensor
    labels: Tensor
    ids: Tensor
    bits: Tensor
    prior_mean: Tensor

    @classmethod
    def bare(
        cls, codes: Tensor, complexity: Tensor, prior_mean: Tensor | None = None, ids: Tensor | None = None
    ) -> Scene:
        """Scenes with only what reward terms may read; ``prior_mean`` is NaN if not given."""
        if prior_mean is None:
            prior_mean = torch.full_like(complexity[..., 0], torch.nan)
        counted, nothing = torch.zeros_like(codes[..., 0]), complexity.new_empty(*complexity.shape[:2], 0)
        return Scene(
            nothing, codes, nothing, complexity, nothing, counted, counted if ids is None else ids, nothing, prior_mean
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # scenes are never written to

    @property
    def shape(self) -> tuple[int, int]:
        """``(P, L)``."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def tokens(self) -> int:
        """K."""
        return self.codes.shape[2]

    @property
    def indices(self) -> Tensor:
        """``int64 [P, L]``, positions in the source; `Engine.open` makes the same scenes from them."""
        return self.ids

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.codes.device

    def part(self, name: str, paths: Tensor, steps: Tensor) -> Tensor:
        """One field of one clip of each chosen scene: ``[P', ...]``; arguments as for `at`."""
        value: Tensor = getattr(self, name)
        return value[paths, steps]

    def at(self, paths: Tensor, steps: Tensor) -> Scene:
        """One clip of each chosen scene.

        Args:
            paths: ``int64 [P']``, scene numbers.
            steps: ``int64 [P']``, position in each.

        Returns:
            A scene of shape ``(P', 1)``.
        """
        return Scene(*(getattr(self, part.name)[paths, steps][:, None] for part in fields(self)))

    def replace_paths(self, paths: Tensor, new: Scene) -> Scene:
        """A copy in which the scenes at ``int64 [P']`` positions are replaced by those of ``new``, in order."""
        return Scene(*(getattr(self, part.name).index_copy(0, paths, getattr(new, part.name)) for part in fields(self)))

    def joined(self, others: Sequence[Scene]) -> Scene:
        """This scene and others of its path length, along P."""
        return Scene(*(torch.cat([getattr(one, part.name) for one in (self, *others)]) for part in fields(Scene)))


@dataclass(frozen=True)
class Outcome:
    """Error and prior accuracy of keeping ``n_tokens`` of each clip, for G paths through each of P scenes.

    Attributes:
        scene: P scenes of L clips.
        n_tokens: ``int64 [G, P, L]`` in 1 … K.
        mse: ``float32 [G, P, L]``, mean squared error of the decoded clip, pixels in [0, 1].
        accuracy: ``float32 [G, P, L]``, the prior's top-5 accuracy over the kept, predicted tokens; 0 where n = 1.
        measures: ``float32 [G, P, L]`` by name; further measurements that reward terms need (`bits`, `lpips`, pixel
            terms; see `ScoringEngine`).
    """

    scene: Scene
    n_tokens: Tensor
    mse: Tensor
    accuracy: Tensor
    measures: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """K."""
        return self.scene.tokens

    @property
    def complexity(self) -> Tensor:
        """``float32 [P, L, 2]``, SC and TC of the clips."""
        return self.scene.complexity

    @property
    def codes(self) -> Tensor:
        """``int64 [P, L, K]``, the clips' codes."""
        return self.scene.codes

    @property
    def prior_mean(self) -> Tensor:
        """``float32 [P, L]``, mean of each clip's Gaussian length prior, in tokens."""
        return self.scene.prior_mean

    @property
    def psnr(self) -> Tensor:
        """``float32 [G, P, L]`` in decibels, at most 100 (errors are clamped at 1e-10)."""
        return -10 * torch.log10(self.mse.clamp(min=1e-10))

    def rearrange(self, paths: Callable[[Tensor], Tensor], scenes: Callable[[Tensor], Tensor]) -> Outcome:
        """Applies ``paths`` to every tensor ``[G, P, L]`` and ``scenes`` to every ``[P, L, ...]``; see `Scene.bare`."""
        return Outcome(
            scene=Scene.bare(
                scenes(self.codes), scenes(self.complexity), scenes(self.prior_mean), scenes(self.scene.ids)
            ),
            n_tokens=paths(self.n_tokens),
            mse=paths(self.mse),
            accuracy=paths(self.accuracy),
            measures={name: paths(value) for name, value in self.measures.items()},
        )


class OutcomeOfAllLengths(Outcome):
    """The outcomes of all K lengths of each clip: an `Outcome` with G = K in which path g keeps n = g + 1 tokens.

    `take` reads the outcome of any path from it.
    """

    @classmethod
    def joined(cls, outcomes: Sequence[OutcomeOfAllLengths]) -> Self:
        """Concatenates outcomes of equal L and K along P."""
        first, *others = outcomes
        return cls(
            scene=first.scene.joined([outcome.scene for outcome in others]),
            n_tokens=torch.cat([outcome.n_tokens for outcome in outcomes], 1),
            mse=torch.cat([outcome.mse for outcome in outcomes], 1),
            accuracy=torch.cat([outcome.accuracy for outcome in outcomes], 1),
            measures={name: torch.cat([outcome.measures[name] for outcome in outcomes], 1) for name in first.measures},
        )

    def take(self, n_tokens: Tensor) -> Outcome:
        """The outcome of chosen lengths, ``int64 [G, P, L]`` in 1 … K."""
        rows = n_tokens - 1
        return Outcome(
            scene=self.scene,
            n_tokens=n_tokens,
            mse=self.mse.gather(0, rows),
            accuracy=self.accuracy.gather(0, rows),
            measures={name: value.gather(0, rows) for name, value in self.measures.items()},
        )

    def errors(self, shortest: int, longest: int) -> Tensor:
        """``float32 [N, P, L]``, mean squared errors at the lengths ``shortest`` … ``longest``."""
        return self.mse[shortest - 1 : longest]
