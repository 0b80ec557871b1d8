"""Frozen networks that all environments of a process share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vaportok_rl.envs.rewards.pixels import pixel_measures
from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.envs.scoring.engine import Distance
from vaportok_rl.tokenizer import PrecisionChoice, VaporTok
from vaportok_rl.tokenizer.files.checkpoints import file_stamps, resolve_checkpoint
from vaportok_rl.tokenizer.model import round_weights

_WORLDS: dict[tuple[object, str, str], VaporTok] = {}
_DISTANCES: dict[tuple[str | None, str | Path | None, str], Distance] = {}


def shared_world(tokenizer: str, device: str = "cpu", precision: PrecisionChoice = "auto") -> VaporTok:
    """The frozen tokenizer of that name, loaded on first use and again after its files change.

    Args:
        tokenizer: a shipped name (``"nano"``), a checkpoint folder or a hub id.
        device: torch device.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"`` (see `resolve_precision`). In bfloat16 the weights are
            rounded; see `round_weights`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged, or the precision unknown.
    """
    key = (file_stamps(resolve_checkpoint(tokenizer)), device, precision)
    if key not in _WORLDS:
        world = round_weights(VaporTok.from_pretrained(tokenizer, device=device, precision=precision))
        _WORLDS[key] = _WORLDS.setdefault((key[0], device, world.precision), world)
    return _WORLDS[key]


def shared_distances(reward: VaporReward, device: str = "cpu") -> Mapping[str, Distance]:
    """The distances that a reward's terms measure on decoded video, by name; networks are loaded on first use.

    Raises:
        FileNotFoundError: a network's weights are missing.
    """
    if "lpips" not in reward.needs:
        return pixel_measures(reward, device)
    key = (reward.perceptual_network, reward.perceptual_backbone, device)
    if key not in _DISTANCES:
        _DISTANCES[key] = pixel_measures(reward, device)["lpips"]
    return pixel_measures(reward, device, _DISTANCES[key])
