"""`CodeSequences`: codes with lengths and labels, which a generator is trained on and generates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaportok_rl.runtime.whole_writes import order_metadata, whole_write


@dataclass(frozen=True)
class CodeSequences:
    """The codes, kept lengths and classes of clips.

    Attributes:
        codes: ``int64 [N, K]`` in 0 … V - 1; those past n are ignored.
        n_tokens: ``int64 [N]`` in 1 … K.
        labels: ``int64 [N]``, index into ``label_names``.
        label_names: the classes.
        codebook_size: V.

    Raises:
        ValueError: a shape or type is wrong, or a length, code or label is out of range.
    """

    codes: Tensor
    n_tokens: Tensor
    labels: Tensor
    label_names: tuple[str, ...]
    codebook_size: int

    def __post_init__(self) -> None:
        shapes = tuple(self.codes.shape), tuple(self.n_tokens.shape), tuple(self.labels.shape)
        if self.codes.dim() != 2 or not len(self.codes) or shapes[1:] != (shapes[0][:1],) * 2:
            raise ValueError(f"Expected codes [N, K], n_tokens [N] and labels [N] with N ≥ 1, got {shapes}.")
        if {self.codes.dtype, self.n_tokens.dtype, self.labels.dtype} != {torch.int64}:
            raise ValueError(
                f"Expected int64, got {self.codes.dtype}, {self.n_tokens.dtype} and {self.labels.dtype}; convert them."
            )
        tokens, classes = self.codes.shape[1], len(self.label_names)
        kept = torch.arange(tokens, device=self.codes.device) < self.n_tokens[:, None]
        for name, values, low, high, advice in (
            ("n_tokens", self.n_tokens, 1, tokens, "a sequence keeps at least one token and at most all"),
            ("kept codes", self.codes[kept], 0, self.codebook_size - 1, "take the tokenizer that made them"),
            ("labels", self.labels, 0, classes - 1, f"the classes are {', '.join(self.label_names[:20])}"),
        ):
            least, most = (int(values.min()), int(values.max())) if values.numel() else (low, high)
            if least < low or most > high:
                raise ValueError(f"Expected {name} in {low}…{high}, got {least}…{most}; {advice}.")

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Sequence[int] | Tensor) -> CodeSequences:
        """The sequences of some rows."""
        at = torch.as_tensor(rows, device=self.codes.device)
        return CodeSequences(self.codes[at], self.n_tokens[at], self.labels[at], self.label_names, self.codebook_size)

    @property
    def identity(self) -> str:
        """A hash of all sequences and classes: 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([self.label_names, self.codebook_size]).encode())
        for part in (self.codes, self.n_tokens, self.labels):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, file: Path) -> Path:
        """Writes a safetensors file atomically; returns its path."""
        tensors = {"codes": self.codes, "n_tokens": self.n_tokens, "labels": self.labels}
        facts = {"label_names": json.dumps(self.label_names), "codebook_size": str(self.codebook_size)}
        with whole_write(file) as scratch:
            save_file({name: value.cpu().int() for name, value in tensors.items()}, scratch, facts)
            order_metadata(scratch)
        return file

    @classmethod
    def load(cls, file: Path) -> CodeSequences:
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is damaged or of another kind.
        """
        try:
            with safe_open(file, "pt") as opened:
                codes, n_tokens, labels = (opened.get_tensor(name).long() for name in ("codes", "n_tokens", "labels"))
                facts = opened.metadata()
                return cls(
                    codes, n_tokens, labels, tuple(json.loads(facts["label_names"])), int(facts["codebook_size"])
                )
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"Expected code sequences at {file}, got another file ({error}); copy it again."
            ) from error
