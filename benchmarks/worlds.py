"""The worlds that are measured, and clips and lengths for them."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from vaportok_rl.envs import shared_world
from vaportok_rl.tokenizer import PRESETS, Precision, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.model import round_weights

QUICK_DEPTH = 2


def random_world(config: VaporTokConfig) -> VaporTok:
    """A frozen world of random weights whose videos depend on every token."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        world = VaporTok(config)
        nn.init.normal_(world.final_layer.linear.weight, std=0.1)
        nn.init.normal_(world.encoder_latent_query_embed)
    return world.freeze()


def large_world(quick: bool, depth: int | None = None) -> VaporTok:
    """The paper's geometry (`vaportok-b`) with random weights; of fewer blocks in a quick run or on request."""
    config = PRESETS["vaportok-b"]
    depth = depth or (QUICK_DEPTH if quick else None)
    if depth:
        prior = dataclasses.replace(config.prior, layers=depth)
        config = dataclasses.replace(config, encoder_depth=depth, decoder_depth=depth, prior=prior)
    return random_world(config)


def nano() -> VaporTok:
    """The shipped world."""
    return shared_world("nano", precision="float32")


def in_precision(world: VaporTok, precision: Precision) -> VaporTok:
    """The world as `shared_world` would hold it in a precision."""
    twin = copy.deepcopy(world)
    twin.precision = precision
    return round_weights(twin)


def random_clips(world: VaporTok, paths: int, length: int) -> Tensor:
    """``uint8 [P, L, C, T, H, W]`` noise: what is in a clip takes no time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (paths, length, *world.config.clip_shape), generator=generator, dtype=torch.uint8)


def random_lengths(shape: tuple[int, int, int], mean: float, tokens: int) -> Tensor:
    """``int64 [G, P, L]``, uniform in 1 … 2 · mean - 1, or all K where the mean is K."""
    if mean >= tokens:
        return torch.full(shape, tokens)
    generator = torch.Generator().manual_seed(2)
    count = shape[0] * shape[1] * shape[2]
    # Evenly spread and then shuffled, so that few lengths have the mean that is asked for too.
    spread = 1 + (torch.arange(count) + 0.5) / count * (2 * mean - 2)
    return spread.round().long()[torch.randperm(count, generator=generator)].view(shape)
