"""Averages a tokenizer's weights before and after a further stage of training.

The average often generalises better than either (Wortsman et al., "Model soups", arXiv 2203.05482). The shipped
``nano`` is such an average; see its card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import tyro

from vaportok_rl.tokenizer import VaporTok, load_checkpoint, save_checkpoint
from vaportok_rl.tokenizer.lengths import TAILDROP_WEIGHTS


def average_weights(
    before: VaporTok, after: VaporTok, share: float = 0.5, taildrop: Literal["before", "after"] = "after"
) -> VaporTok:
    """Averages two tokenizers of one geometry.

    The taildrop module and the calibration of the complexity score are taken from one of the two: a warm start
    re-initialises both, so an average would mean nothing.

    Args:
        before: the weights before the later stage.
        after: the weights after it.
        share: weight of ``after``, 0 … 1.
        taildrop: whose taildrop module and calibration to keep.

    Returns:
        The one whose taildrop module is kept, changed in place.

    Raises:
        ValueError: the geometries differ, or the share is outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected a share in [0, 1], got {share}; 0.5 weights both equally.")
    if replace(before.config, taildrop=after.config.taildrop, complexity=after.config.complexity) != after.config:
        raise ValueError(
            "Expected two tokenizers of one geometry, got different configurations; average a tokenizer with one that "
            "was trained from it."
        )
    kept, other, weight = (after, before, 1 - share) if taildrop == "after" else (before, after, share)
    others = other.state_dict()
    with torch.no_grad():
        for name, value in kept.state_dict().items():
            if value.is_floating_point() and not name.startswith(TAILDROP_WEIGHTS):
                value.copy_(torch.lerp(value, others[name].to(value), weight))
    return kept


def main(
    before: str, after: str, out: Path, /, share: float = 0.5, taildrop: Literal["before", "after"] = "after"
) -> None:
    """Averages the weights before and after a stage of training.

    Args:
        before: checkpoint before it: a shipped name, a folder or a hub id.
        after: checkpoint after it.
        out: new folder for the average.
        share: weight of ``after``.
        taildrop: whose taildrop module and calibration to keep.

    Raises:
        FileExistsError: the folder exists.
    """
    if out.exists():
        raise FileExistsError(f"Expected a new folder, got {out}, which exists; choose another or move it away.")
    print(save_checkpoint(average_weights(load_checkpoint(before), load_checkpoint(after), share, taildrop), out))


if __name__ == "__main__":
    tyro.cli(main)
