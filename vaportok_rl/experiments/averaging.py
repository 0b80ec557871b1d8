"""The average of a tokenizer's weights before and after a further stage of training.

Where one was trained from the other, the average often generalises better than either (Wortsman et al., "Model soups",
arXiv 2203.05482; the shipped ``nano`` is such an average, see its card).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import tyro

from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.checkpoint import load_checkpoint, save_checkpoint

_TAILDROP = "taildrop_module."


def average_weights(before: VaporTok, after: VaporTok, share: float = 0.5) -> VaporTok:
    """Averages two tokenizers of one geometry.

    The taildrop module and the calibration of the complexity score are those of ``after``: a warm start begins both
    anew, so there is nothing to average them with.

    Args:
        before: the weights that the later training started from.
        after: what became of them; changed in place.
        share: of ``after`` in the average, 0 … 1.

    Returns:
        ``after``.

    Raises:
        ValueError: the geometries differ, or the share is outside 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected a share in [0, 1], got {share}; 0.5 weighs both alike.")
    aligned = replace(before.config, taildrop=after.config.taildrop, complexity=after.config.complexity)
    if aligned != after.config:
        raise ValueError(
            "Expected two tokenizers of one geometry, got different configurations; average a tokenizer with one that "
            "was trained from it."
        )
    start = before.state_dict()
    with torch.no_grad():
        for name, value in after.state_dict().items():
            if value.is_floating_point() and not name.startswith(_TAILDROP):
                value.copy_(torch.lerp(start[name].to(value), value, share))
    return after


def main(before: str, after: str, out: Path, /, share: float = 0.5) -> None:
    """Averages the weights before and after a stage of training.

    Args:
        before: checkpoint that training started from: a shipped name, a folder or a hub id.
        after: checkpoint that it ended with.
        out: new folder for the average.
        share: of ``after`` in the average.

    Raises:
        FileExistsError: the folder exists.
    """
    if out.exists():
        raise FileExistsError(f"Expected a new folder, got {out}, which exists; choose another or move it away.")
    print(save_checkpoint(average_weights(load_checkpoint(before), load_checkpoint(after), share), out))


if __name__ == "__main__":
    tyro.cli(main)
