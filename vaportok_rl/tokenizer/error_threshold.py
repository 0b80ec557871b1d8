"""The fewest tokens that reconstruct a clip well enough: how a ``naive`` tokenizer adapts (supplement C.4)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from vaportok_rl.tokenizer.inputs import clips_to_float
from vaportok_rl.tokenizer.model import VaporTok

Search = Literal["linear", "binary"]


def check_error_threshold(threshold: float) -> None:
    """Refuses what no mean squared error can be.

    Raises:
        ValueError: the threshold is negative or not finite.
    """
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(
            f"Expected a finite error threshold ≥ 0, got {threshold}; give a mean squared error of pixel values in "
            "[0, 1], for example 0.005."
        )


@torch.no_grad()
def lengths_under_error(
    world: VaporTok, clips: Tensor, codes: Tensor, threshold: float, search: Search = "linear"
) -> Tensor:
    """For each clip, a length whose reconstruction error meets a threshold.

    - ``linear`` is exact: it tries n = 1, 2, … until the error is met, and returns the smallest such n. Clips that
      are done drop out, so it takes at most K - 1 decodes of fewer and fewer clips, with dropped tokens removed.
    - ``binary`` halves the range instead, for ⌈log2 K⌉ decodes of all clips, with dropped tokens masked; nothing is
      read back from the device in between. It supposes, as ElasticTok does, that the error never rises with n. Where
      it does rise, the answer may be longer than the linear one; it is never shorter.

    Either way an answer below K has been decoded and has met the threshold. K is the answer when nothing shorter was
    found, whether or not K itself meets it.

    Args:
        world: the frozen tokenizer; its ``decode`` is what is searched.
        clips: ``[B, C, T, H, W]``, uint8 or float in [0, 1].
        codes: ``int64 [B, K]``, the clips' codes; with fewer of them, their number stands for K.
        threshold: largest mean squared error allowed, of pixel values in [0, 1]; at least 0.
        search: ``"linear"`` or ``"binary"``.

    Returns:
        ``int64 [B]`` in 1 … K.

    Raises:
        ValueError: the threshold is negative or not finite, the search is unknown, or the clips are of another shape,
            type or range than the world's, or not as many as the codes.
    """
    check_error_threshold(threshold)
    if search not in get_args(Search):
        raise ValueError(f"Expected search 'linear' or 'binary', got {search!r}; choose one of them.")
    video = clips_to_float(clips, world.config.clip_shape)
    if codes.dim() != 2 or codes.shape[0] != video.shape[0]:
        raise ValueError(
            f"Expected the codes [{video.shape[0]}, K] of {video.shape[0]} clips, got shape {tuple(codes.shape)}; "
            "pass the codes that encode() returned for these clips."
        )
    find = _linear_search if search == "linear" else _binary_search
    return find(world, video, codes, threshold)


def _linear_search(world: VaporTok, video: Tensor, codes: Tensor, threshold: float) -> Tensor:
    tokens = codes.shape[1]
    lengths = torch.full(codes.shape[:1], tokens, device=codes.device)
    searching = torch.arange(codes.shape[0], device=codes.device)
    for n in range(1, tokens):
        if not len(searching):
            break
        met = _errors(world.decode(codes[searching], n), video[searching]) <= threshold
        lengths[searching[met]] = n
        searching = searching[~met]
    return lengths


def _binary_search(world: VaporTok, video: Tensor, codes: Tensor, threshold: float) -> Tensor:
    tokens = codes.shape[1]
    low = torch.ones(codes.shape[:1], dtype=torch.int64, device=codes.device)
    high = torch.full_like(low, tokens)
    # Every length ever put into `high` has met the threshold; only its first value, K, has not been tried.
    for _ in range((tokens - 1).bit_length()):
        middle = (low + high) // 2
        met = _errors(world.decode(codes, middle), video) <= threshold
        high = torch.where(met, middle, high)
        # Once a clip's range has closed, its middle is `high` and neither bound moves the answer.
        low = torch.where(met, low, middle + 1)
    return high


def _errors(decoded: Tensor, video: Tensor) -> Tensor:
    """Mean squared error of each clip: ``float32 [B, C, T, H, W]`` twice to ``float32 [B]``."""
    return (decoded - video).square().flatten(1).mean(1)
