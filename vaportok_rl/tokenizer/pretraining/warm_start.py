"""Starting a run from the weights of another tokenizer."""

from __future__ import annotations

import operator

import torch
from torch import nn

from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig

# From video to codes.
_ENCODER = (
    *("x_embedder", "encoder_latent_query_embed", "encoder", "bottleneck.in_linear", "bottleneck.norm_layer"),
    "bottleneck.regularizer",
)


def check_frozen(config: PretrainConfig, given: bool) -> None:
    """Raises a `ValueError` if the encoder is frozen and no weights are ``given``."""
    if config.frozen_encoder and not given:
        raise ValueError("Expected a warm start with frozen_encoder, got none; name one, or train the encoder.")


@torch.no_grad()
def start_from(model: VaporTok, source: VaporTok, frozen_encoder: bool = False) -> list[str]:
    """Copies every weight that fits of a trained tokenizer into the one to be trained.

    The complexity tables stay those of the run's clips.

    Args:
        model: the tokenizer to be trained, changed in place.
        source: another tokenizer, for instance LARP's.
        frozen_encoder: whether everything between video and codes must fit.

    Returns:
        Names of the model's weights that the source lacks or has in another shape; these begin untrained.

    Raises:
        ValueError: the encoder must fit and does not; the message names the first weight.
    """
    given = source.state_dict()
    left_out = []
    for name, value in model.state_dict().items():
        if name.startswith("complexity_scale."):
            continue
        if name in given and given[name].shape == value.shape:
            value.copy_(given[name])
        else:
            left_out.append(name)
    for name in left_out:
        if frozen_encoder and name.startswith(_ENCODER):
            found = tuple(given[name].shape) if name in given else "none"
            raise ValueError(
                f"Expected a warm start whose encoder fits with frozen_encoder, got {name} of shape {found}; pretrain "
                "with the geometry that the checkpoint was made with."
            )
    return left_out


def freeze_encoder(model: VaporTok) -> None:
    """Freezes everything between video and codes, in evaluation mode; repeat after each ``train()``.

    Args:
        model: the tokenizer to be trained.
    """
    for name in _ENCODER:
        part = operator.attrgetter(name)(model)
        # Without standardisation there is no such layer.
        if isinstance(part, nn.Module):
            part.eval()
        if part is not None:
            part.requires_grad_(False)
