"""What a table is bound to: the tokenizer's weights and the clips, known by their hashes."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.tokenizer import shipped_checkpoints
from vaportok_rl.tokenizer.checkpoint import CONFIG_FILE, WEIGHTS_FILE, resolve_checkpoint


def weights_digest(tokenizer: str) -> str:
    """SHA-256 of a checkpoint's files: weights and configuration, or a LARP trainer's file.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    path = resolve_checkpoint(tokenizer)
    files = [path] if path.is_file() else [path / WEIGHTS_FILE, path / CONFIG_FILE]
    # A checkpoint that is written anew has another time or size.
    stamps = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _files_digest(stamps)


@lru_cache(maxsize=16)
def _files_digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, size in stamps:
        digest.update(f"{size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def is_local(tokenizer: str) -> bool:
    """Whether a checkpoint can be read without asking a hub."""
    return tokenizer in shipped_checkpoints() or Path(tokenizer).expanduser().exists()


def clip_digests(clips: Tensor) -> Tensor:
    """SHA-256 of each clip's pixels: ``uint8 [B, C, T, H, W]`` to ``uint8 [B, 32]``."""
    rows = [hashlib.sha256(np.ascontiguousarray(clip).data).digest() for clip in clips.cpu().numpy()]
    return torch.from_numpy(np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32).copy())
