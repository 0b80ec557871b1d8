"""Configuration of the tokenizer, its prior and its taildrop module; the named presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, SHARE, check_fields

Strategy = Literal["naive", "argmax", "sample", "pre-sample"]
CodeNorm = Literal["none", "batch"]
PixelRange = Literal["unit", "symmetric"]

_Config = TypeVar("_Config")
_Count = Annotated[int, AT_LEAST_1]
_Share = Annotated[float, SHARE]
_Positive = Annotated[float, POSITIVE]


@dataclass(frozen=True)
class PriorConfig:
    """The autoregressive prior (supplement A.2; sizes as in LARP).

    Attributes:
        layers: transformer blocks.
        heads: attention heads.
        width: channels; divisible by ``heads``.
        positions: rows of the position table; at least ``tokens - 1``.
        dropout: embedding and residual dropout in training; never active in evaluation.
        temperature: the cosine logits are divided by it. LARP uses 1.0, which leaves the softmax almost uniform;
            top-k accuracy does not depend on it.
    """

    layers: _Count = 4
    heads: _Count = 4
    width: _Count = 128
    positions: _Count = 1024
    dropout: _Share = 0.0
    temperature: _Positive = 0.07


@dataclass(frozen=True)
class TaildropConfig:
    """The taildrop query module, which is the policy (supplement A.4 and E).

    Attributes:
        blocks: transformer blocks I.
        temperature: of the softmax over the K lengths.
        stop_gradient: whether its loss leaves the encoder alone.
        strategy: how lengths are drawn in training, and with it how they are chosen at inference (supplement C.4).
    """

    blocks: _Count = 2
    temperature: _Positive = 1.8
    stop_gradient: bool = True
    strategy: Strategy = "sample"


@dataclass(frozen=True)
class ComplexityConfig:
    """Maps spatial and temporal complexity to a score in [0, 1] and on to the Gaussian prior over lengths.

    Attributes:
        spatial_quantiles: SC at evenly spaced quantiles of the training clips, in bits.
        temporal_quantiles: TC at evenly spaced quantiles of the training clips, in grey levels a frame.
        temporal_share: weight of the temporal quantile in the score; the spatial one has the rest.
        mean_range: mean of the Gaussian at scores 0 and 1, as a share of K.
        deviation: standard deviation of the Gaussian, as a share of K.
    """

    spatial_quantiles: tuple[float, ...] = (0.0, 8.0)
    temporal_quantiles: tuple[float, ...] = (0.0, 20.0)
    temporal_share: _Share = 0.6
    mean_range: tuple[float, float] = (0.1, 0.9)
    deviation: _Positive = 0.15


@dataclass(frozen=True)
class VaporTokConfig:
    """Geometry and sizes of a tokenizer. Lengths are counted in frames, pixels, tokens and channels.

    Attributes:
        output_overlap: pixels by which the decoder's patches reach over each border of theirs, where they are added to
            their neighbours', so that borders do not show; 0 in the LARP format.
        latent_position_base: of the K sinusoidal positions in the decoder, whose wavelengths in tokens are 2π to 2π
            times this. With the LARP format's 10,000 neighbours are nearly equal, and tokens repeat one another.

    Raises:
        ValueError: a value is of the wrong type or out of range, or the geometry is impossible (a size that the patch
            does not divide, a width that the heads do not divide, more tokens than the prior has positions).
    """

    frames: _Count = 16
    size: _Count = 32
    channels: Literal[1, 3] = 3
    patch_frames: _Count = 4
    patch_size: _Count = 8
    output_overlap: Annotated[int, NOT_NEGATIVE] = 0
    tokens: _Count = 64
    width: _Count = 128
    encoder_depth: _Count = 4
    decoder_depth: _Count = 4
    heads: _Count = 4
    codebook_size: _Count = 1024
    code_width: _Count = 8
    code_norm: CodeNorm = "batch"
    quantizer_temperature: _Positive = 0.01
    pixel_range: PixelRange = "symmetric"
    latent_position_base: _Positive = 10000.0
    prior: PriorConfig = field(default_factory=PriorConfig)
    taildrop: TaildropConfig = field(default_factory=TaildropConfig)
    complexity: ComplexityConfig = field(default_factory=ComplexityConfig)

    def __post_init__(self) -> None:
        try:
            check_fields(self)
            for part in ("prior", "taildrop", "complexity"):
                check_fields(getattr(self, part), prefix=f"{part}.")
        except TypeError as error:  # the values come from files, whose damage is a ValueError
            raise ValueError(str(error)) from error
        for table in ("spatial_quantiles", "temporal_quantiles"):
            knots = getattr(self.complexity, table)
            if len(knots) < 2 or list(knots) != sorted(knots):
                raise ValueError(f"Expected complexity.{table} to be 2 or more rising numbers, got {knots}.")
        means = self.complexity.mean_range
        if not 0 <= means[0] <= means[1] <= 1:
            raise ValueError(f"Expected complexity.mean_range to be two rising numbers in [0, 1], got {means}.")
        _check_divides("frames", self.frames, "patch_frames", self.patch_frames)
        _check_divides("size", self.size, "patch_size", self.patch_size)
        _check_divides("width", self.width, "heads", self.heads)
        _check_divides("prior.width", self.prior.width, "prior.heads", self.prior.heads)
        if 2 * self.output_overlap > self.patch_size:
            raise ValueError(
                f"Expected output_overlap of at most half the patch_size={self.patch_size}, got {self.output_overlap}; "
                "lower it."
            )
        if self.width % 4:
            raise ValueError(f"Expected width divisible by 4 (sin-cos positions), got {self.width}; round it.")
        if self.tokens > self.prior.positions + 1:
            raise ValueError(
                f"Expected tokens ≤ prior.positions + 1 = {self.prior.positions + 1}, got {self.tokens}; "
                "raise prior.positions."
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, height and width."""
        return self.frames // self.patch_frames, self.size // self.patch_size, self.size // self.patch_size

    @property
    def patches(self) -> int:
        """Number of patch tokens P."""
        time, height, width = self.grid
        return time * height * width

    @property
    def patch_values(self) -> int:
        """Pixel values that the decoder predicts for one patch, overlap included."""
        return self.patch_frames * (self.patch_size + 2 * self.output_overlap) ** 2 * self.channels

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """``(C, T, H, W)``."""
        return self.channels, self.frames, self.size, self.size

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary that `from_dict` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VaporTokConfig:
        """Builds a configuration from `to_dict`'s output.

        Raises:
            ValueError: a key is unknown or a value impossible.
        """
        if not isinstance(values, Mapping):
            raise ValueError(
                f"Expected the configuration to be a JSON object, got {type(values).__name__}; restore it."
            )
        parts: dict[str, Any] = dict(values)
        for name, kind in (("prior", PriorConfig), ("taildrop", TaildropConfig), ("complexity", ComplexityConfig)):
            if name in parts:
                if not isinstance(parts[name], Mapping):
                    raise ValueError(f"Expected {name} to be a JSON object, got {parts[name]!r}; restore it.")
                entries = {key: tuple(v) if isinstance(v, list) else v for key, v in parts[name].items()}
                parts[name] = _build(kind, entries, f"{name}.")
        return _build(cls, parts, "")


def _build(kind: type[_Config], values: dict[str, Any], prefix: str) -> _Config:
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(
                f"Expected configuration keys among {', '.join(prefix + name for name in known)}; "
                f"got {prefix + key!r}. Is this config.json from another version or another model?"
            )
    return kind(**values)


def _check_divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise ValueError(f"Expected {whole_name} divisible by {part_name}={part}, got {whole}; change one of them.")


_VAPORTOK_B = VaporTokConfig(
    size=128,
    tokens=1024,
    width=768,
    encoder_depth=12,
    decoder_depth=12,
    heads=12,
    codebook_size=8192,
    code_width=8,
    code_norm="none",
    quantizer_temperature=0.03,
    pixel_range="unit",
    prior=PriorConfig(layers=12, heads=6, width=384, dropout=0.1, temperature=1.0),
)

PRESETS: dict[str, VaporTokConfig] = {
    "nano": VaporTokConfig(output_overlap=1, latent_position_base=20.0, prior=PriorConfig(positions=64)),
    "small": VaporTokConfig(
        size=64,
        output_overlap=1,
        latent_position_base=80.0,
        tokens=256,
        width=256,
        encoder_depth=6,
        decoder_depth=6,
        heads=4,
        codebook_size=2048,
        prior=PriorConfig(layers=6, width=256, positions=256),
    ),
    "vaportok-b": _VAPORTOK_B,
    "larp-l": dataclasses.replace(_VAPORTOK_B, code_width=16),
}
"""Geometries that can be pretrained by name; ``nano`` ships with weights, ``small`` has a recipe."""
