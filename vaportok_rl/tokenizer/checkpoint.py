"""Loads and saves tokenizers, whole or their taildrop modules alone."""

from __future__ import annotations

from pathlib import Path

from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.files.checkpoints import build_stored, read_checkpoint, write_checkpoint
from vaportok_rl.tokenizer.lengths import TAILDROP_WEIGHTS, TaildropQueryModule
from vaportok_rl.tokenizer.model import VaporTok

load_checkpoint = VaporTok.from_pretrained


def save_checkpoint(model: VaporTok, folder: str | Path, *, half: bool = False) -> Path:
    """Writes a model to a folder; see `checkpoints.write_checkpoint`."""
    return write_checkpoint(model.config, model.state_dict(), folder, half=half)


def load_taildrop(source: str | Path) -> tuple[VaporTokConfig, TaildropQueryModule]:
    """A checkpoint's configuration and taildrop query module (float32, on the host), without loading the rest.

    Args:
        source: see `VaporTok.from_pretrained`, also for the errors; a LARP tokenizer is loaded whole.
    """
    stored = read_checkpoint(source, only=TAILDROP_WEIGHTS)
    if stored.from_larp:
        return stored.config, VaporTok.from_pretrained(source).taildrop_module
    own = {name.removeprefix(TAILDROP_WEIGHTS): value for name, value in stored.state.items()}
    return stored.config, build_stored(stored._replace(state=own), lambda: TaildropQueryModule(stored.config))
