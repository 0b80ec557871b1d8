"""The data that flows through the decision process: scenes in, outcomes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

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
        bits: ``float32 [P, L, K]``; entry n - 1 is the prior's negative log-likelihood of the tokens 1 … n - 1. Left
            empty, ``[P, L, 0]``, by an engine that was not asked for it.
    """

    latents: Tensor
    codes: Tensor
    hits: Tensor
    complexity: Tensor
    clips: Tensor
    labels: Tensor
    ids: Tensor
    bits: Tensor = None  # type: ignore[assignment]  # never None once made

    def __post_init__(self) -> None:
        if self.bits is None:
            object.__setattr__(self, "bits", self.hits.new_empty(*self.hits.shape[:2], 0))

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
        """``int64 [P, L]``, from which `TaildropProcess.open_each` makes the same scenes again."""
        return self.ids

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
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
        """A copy in which the chosen scenes are those of ``new`` (in order)."""
        replaced = {}
        for part in fields(self):
            value = getattr(self, part.name).clone()
            value[paths] = getattr(new, part.name)
            replaced[part.name] = value
        return Scene(**replaced)

    @classmethod
    def joined(cls, scenes: Sequence[Scene]) -> Scene:
        """Stacks scenes of equal path length along P."""
        return cls(*(torch.cat([getattr(scene, part.name) for scene in scenes]) for part in fields(cls)))


def join_scenes(scenes: Sequence[Scene]) -> Scene:
    """Stacks scenes of equal path length, all of one kind, along P."""
    return type(scenes[0]).joined(scenes)


class _Codes:
    """A field that may be given as a function, called when the field is first read.

    An outcome table gathers codes only for the terms that look at them.
    """

    def __get__(self, outcome: Outcome | None, kind: type[Outcome]) -> Tensor | None:
        if outcome is None:
            return None  # the field's default
        held = outcome.__dict__["_codes"]
        if held is not None and not isinstance(held, Tensor):
            held = outcome.__dict__["_codes"] = held()
        return held  # type: ignore[no-any-return]

    def __set__(self, outcome: Outcome, value: Tensor | Callable[[], Tensor] | None) -> None:
        outcome.__dict__["_codes"] = value


@dataclass(frozen=True)
class Outcome:
    """What keeping ``n_tokens`` did to each clip, for G paths through each of P scenes.

    Attributes:
        n_tokens: ``int64 [G, P, L]`` in 1 … K.
        mse: ``float32 [G, P, L]``, mean squared error of the decoded clip, pixels in [0, 1].
        accuracy: ``float32 [G, P, L]``, the prior's top-5 accuracy over the kept, predicted tokens; 0 where n = 1.
        complexity: ``float32 [P, L, 2]``, SC and TC.
        tokens: K.
        codes: ``int64 [P, L, K]``, the scenes' codes, or a function that returns them; None where an outcome was put
            together without scenes.
        measures: ``float32 [G, P, L]`` by name; what reward terms asked the engine for beyond error and accuracy
            (`bits`, `lpips`; see `ScoringEngine`).
    """

    n_tokens: Tensor
    mse: Tensor
    accuracy: Tensor
    complexity: Tensor
    tokens: int
    codes: _Codes = _Codes()
    measures: Mapping[str, Tensor] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_codes": self.codes}

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
        return replace(
            self,
            n_tokens=n_tokens,
            mse=self.mse.gather(0, rows),
            accuracy=self.accuracy.gather(0, rows),
            measures={name: value.gather(0, rows) for name, value in self.measures.items()},
        )

    def rearrange(self, paths: Callable[[Tensor], Tensor], scenes: Callable[[Tensor], Tensor]) -> Outcome:
        """A copy with ``paths`` applied to every tensor ``[G, P, L]`` and ``scenes`` to every ``[P, L, ...]``."""
        return Outcome(
            n_tokens=paths(self.n_tokens),
            mse=paths(self.mse),
            accuracy=paths(self.accuracy),
            complexity=scenes(self.complexity),
            tokens=self.tokens,
            codes=None if self.codes is None else scenes(self.codes),
            measures={name: paths(value) for name, value in self.measures.items()},
        )


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Stacks outcomes of equal G, L and K along P."""
    first = outcomes[0]
    codes = [outcome.codes for outcome in outcomes if outcome.codes is not None]
    return Outcome(
        n_tokens=torch.cat([outcome.n_tokens for outcome in outcomes], 1),
        mse=torch.cat([outcome.mse for outcome in outcomes], 1),
        accuracy=torch.cat([outcome.accuracy for outcome in outcomes], 1),
        complexity=torch.cat([outcome.complexity for outcome in outcomes]),
        tokens=first.tokens,
        codes=torch.cat(codes) if len(codes) == len(outcomes) else None,
        measures={name: torch.cat([outcome.measures[name] for outcome in outcomes], 1) for name in first.measures},
    )
