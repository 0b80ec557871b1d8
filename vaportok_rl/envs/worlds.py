"""Frozen networks, one of each a process: never copied, never loaded twice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from vaportok_rl.envs.engine import Distance
from vaportok_rl.envs.rewards import VaporReward
from vaportok_rl.tokenizer import Precision, VaporTok
from vaportok_rl.tokenizer.checkpoint import resolve_checkpoint

_WORLDS: dict[tuple[Path, str, str], VaporTok] = {}
_DISTANCES: dict[tuple[str, str | Path | None, str], Mapping[str, Distance]] = {}

_IMPORTED_IN = os.getpid()


def shared_world(tokenizer: str, device: str = "cpu", precision: Precision = "float32") -> VaporTok:
    """The frozen tokenizer of that name, loaded on first use.

    In a forked process torch computes with one thread from then on.

    Args:
        tokenizer: a shipped name (``"nano"``), a checkpoint folder or a hub id.
        device: torch device.
        precision: ``"float32"`` or ``"bfloat16"``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged.
    """
    if os.getpid() != _IMPORTED_IN:
        # A forked process, such as a worker of Gymnasium's AsyncVectorEnv, inherits OpenMP's pool without its threads,
        # and would wait for them for ever.
        torch.set_num_threads(1)
    key = (resolve_checkpoint(tokenizer).resolve(), device, precision)
    if key not in _WORLDS:
        _WORLDS[key] = VaporTok.from_pretrained(tokenizer, device=device, precision=precision)
    return _WORLDS[key]


def shared_distances(reward: VaporReward, device: str = "cpu") -> Mapping[str, Distance]:
    """The networks that a reward's terms measure with, loaded on first use; none if no term needs one.

    Raises:
        FileNotFoundError: the weights of a network are not there.
    """
    if "lpips" not in reward.needs:
        return {}
    key = (reward.perceptual_network, reward.perceptual_backbone, device)
    if key not in _DISTANCES:
        _DISTANCES[key] = reward.distances(device)
    return _DISTANCES[key]
