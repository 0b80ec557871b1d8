"""One frozen world a (checkpoint, device, precision) and process: never copied, never loaded twice."""

from __future__ import annotations

from pathlib import Path

from vaportok_rl.tokenizer import Precision, VaporTok
from vaportok_rl.tokenizer.checkpoint import resolve_checkpoint

_WORLDS: dict[tuple[Path, str, str], VaporTok] = {}


def shared_world(tokenizer: str, device: str = "cpu", precision: Precision = "float32") -> VaporTok:
    """The frozen tokenizer of that name, loaded on first use.

    Args:
        tokenizer: a shipped name (``"nano"``), a checkpoint folder or a hub id.
        device: torch device.
        precision: ``"float32"`` or ``"bfloat16"``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged.
    """
    key = (resolve_checkpoint(tokenizer).resolve(), device, precision)
    if key not in _WORLDS:
        _WORLDS[key] = VaporTok.from_pretrained(tokenizer, device=device, precision=precision)
    return _WORLDS[key]
