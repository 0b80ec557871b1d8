"""`GeneratorConfig`: a generator's sizes, its tokenizer and its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from vaportok_rl.runtime.declared import AT_LEAST_1, Range, check_fields


@dataclass(frozen=True)
class GeneratorSizes:
    """Sizes of the decoder; the defaults suit `nano`."""

    width: Annotated[int, AT_LEAST_1] = 192
    """Channels; divisible by `heads`, with an even number for each."""
    layers: Annotated[int, AT_LEAST_1] = 6
    """Transformer blocks."""
    heads: Annotated[int, AT_LEAST_1] = 3
    """Attention heads."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"Expected width divisible by 2 · heads = {2 * self.heads} (rotary positions turn pairs), got "
                f"{self.width}; change one of them."
            )


@dataclass(frozen=True)
class GeneratorConfig(GeneratorSizes):
    """A generator of one tokenizer's codes.

    Attributes:
        tokens: K.
        codebook_size: V.
        label_names: the classes.
        tokenizer: the tokenizer's name or folder, as given in training.
        weights: hash of the tokenizer's weights.
        lengths: the policy that chose the lengths of the training sequences.
        unconditional: share of the training sequences that were shown without their class; 0 excludes guidance.
    """

    tokens: Annotated[int, AT_LEAST_1] = 64
    codebook_size: Annotated[int, Range(2)] = 1024
    label_names: tuple[str, ...] = ()
    tokenizer: str = "nano"
    weights: str = ""
    lengths: str = "argmax"
    unconditional: Annotated[float, Range(0, 1, open_high=True)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, GeneratorConfig)
        if not self.label_names:
            raise ValueError("Expected at least one class, got none; train on labelled clips.")

    @property
    def stop(self) -> int:
        """[stop] among the V + 1 outputs."""
        return self.codebook_size

    @property
    def no_class(self) -> int:
        """The label of unconditional sequences, which guidance moves away from."""
        return len(self.label_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "label_names": list(self.label_names)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorConfig:
        """From `to_dict`.

        Raises:
            ValueError: a field is missing or unknown, or out of range.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping):
            raise ValueError(f"Expected a generator's settings by name, got {values!r}; copy its file again.")
        if not isinstance(values.get("label_names", []), list):
            raise ValueError(f"Expected label_names as a list, got {values['label_names']!r}; copy the file again.")
        if values.keys() != known:
            odd = sorted(values.keys() ^ known)
            raise ValueError(f"Expected a generator's settings {', '.join(sorted(known))}, got others in {odd}.")
        return cls(**{**values, "label_names": tuple(values["label_names"])})
