"""Shard files of an outcome table, and the hashes of weights, clips and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vaportok_rl.envs.table.manifest import ShardRecord
from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.tokenizer import shipped_checkpoints
from vaportok_rl.tokenizer.files.checkpoints import file_stamps, resolve_checkpoint

_METADATA = "table"


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}:".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def write_shard(path: Path, tensors: Mapping[str, Tensor], build: str) -> None:
    """Writes a shard, whole or not at all.

    Args:
        path: the file.
        tensors: on the host.
        build: `TableBuild.identity`, by which a resumed build recognises its shards.
    """
    # One metadata entry only: the library writes several in undefined order.
    metadata = {_METADATA: json.dumps({"build": build, "sha256": tensors_digest(tensors)}, sort_keys=True)}
    with whole_write(path) as scratch:
        scratch.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}, metadata))


def own_shard(path: Path, build: str) -> dict[str, Tensor] | None:
    """A shard's tensors if it is complete and of this build, else None."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        stated = json.loads(header["__metadata__"][_METADATA])
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return tensors if stated == {"build": build, "sha256": tensors_digest(tensors)} else None


def record_shard(path: Path, clips: int) -> ShardRecord:
    """The manifest's entry for a shard."""
    content = path.read_bytes()
    return ShardRecord(path.name, clips, len(content), hashlib.sha256(content).hexdigest())


def read_shard(folder: Path, record: ShardRecord) -> dict[str, Tensor]:
    """Reads a shard of a finished table and checks it against the manifest.

    Raises:
        FileNotFoundError: the shard is missing.
        ValueError: it is damaged.
    """
    path = folder / record.file
    remedy = "copy it again, or run the `vaportok-rl table build` that made the table, which repairs it"
    if not path.is_file():
        raise FileNotFoundError(f"Expected the shard {record.file} in {folder}, found none; {remedy}.")
    content = path.read_bytes()
    if len(content) != record.size:
        raise ValueError(f"Expected {record.size} bytes in the shard {path}, got {len(content)}; {remedy}.")
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise ValueError(
            f"Expected the shard {path} to have the SHA-256 {record.sha256[:12]}…, got {found[:12]}…: it is damaged; "
            f"{remedy}."
        )
    return load(content)


def weights_digest(tokenizer: str) -> str:
    """SHA-256 of a checkpoint's files: weights and configuration, or a LARP training checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    return _files_digest(file_stamps(resolve_checkpoint(tokenizer)))


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
    """Whether a checkpoint is on this machine, so that no hub is contacted."""
    return tokenizer in shipped_checkpoints() or Path(tokenizer).expanduser().exists()


def clip_digests(clips: Tensor) -> Tensor:
    """SHA-256 of each clip's pixels: ``uint8 [B, C, T, H, W]`` to ``uint8 [B, 32]``."""
    rows = [hashlib.sha256(np.ascontiguousarray(clip).data).digest() for clip in clips.cpu().numpy()]
    return torch.from_numpy(np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32).copy())
