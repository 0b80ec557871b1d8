"""Code sequences: what is impossible is refused, and a file gives back what was saved."""

from pathlib import Path

import pytest
import torch

from vaportok_rl.generation import CodeSequences


def sequences(**changes: object) -> CodeSequences:
    values = {
        "codes": torch.tensor([[0, 1, 2], [4, 99, 99]]),
        "n_tokens": torch.tensor([3, 1]),
        "labels": torch.tensor([1, 0]),
        "label_names": ("a", "b"),
        "codebook_size": 5,
    }
    return CodeSequences(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"n_tokens": torch.tensor([0, 1])}, r"n_tokens in 1…3, got 0…1"),
        ({"n_tokens": torch.tensor([4, 1])}, "n_tokens"),
        ({"codes": torch.tensor([[0, 5, 2], [4, 0, 0]])}, r"codes in 0…4, got 0…5"),
        ({"codes": torch.tensor([[0, -1, 2], [4, 0, 0]])}, "codes"),
        ({"labels": torch.tensor([2, 0])}, "labels.*a, b"),
        ({"labels": torch.tensor([0])}, "labels"),
        ({"codes": torch.zeros(0, 3, dtype=torch.int64)}, "N ≥ 1"),
        ({"labels": torch.tensor([1.0, 0.0])}, "int64"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        sequences(**changes)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    saved = sequences()
    again = CodeSequences.load(saved.save(tmp_path / "some.safetensors"))
    assert again.identity == saved.identity
    assert again.label_names == ("a", "b")
    assert sequences(labels=torch.tensor([0, 0])).identity != saved.identity
    (tmp_path / "some.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="copy it again"):
        CodeSequences.load(tmp_path / "some.safetensors")
