"""Starting a run from the weights of another tokenizer."""

from __future__ import annotations

import operator

from torch import nn

from vaportok_rl.tokenizer.model import VaporTok

# The taildrop module learns lengths for this run's clips and strategy, so it never comes from elsewhere.
_FRESH = "taildrop_module."
# From video to codes.
_ENCODER = ("x_embedder", "encoder", "bottleneck.in_linear", "bottleneck.norm_layer", "bottleneck.regularizer")


def start_from(model: VaporTok, source: VaporTok) -> None:
    """Copies every weight but the taildrop query module's.

    Args:
        model: the tokenizer to be trained.
        source: a tokenizer of the same geometry, for instance LARP's.

    Raises:
        ValueError: the two differ in geometry; the message names the first weight that does not fit.
    """
    own, given = (
        {name: value for name, value in each.state_dict().items() if not name.startswith(_FRESH)}
        for each in (model, source)
    )
    for name in sorted(own.keys() | given.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (own, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Expected a warm start of the geometry being trained, got {name} of shape {shapes[1]} for {shapes[0]};"
                " pretrain with the preset or the geometry that the checkpoint was made with."
            )
    model.load_state_dict({**model.state_dict(), **given})


def freeze_encoder(model: VaporTok, given: bool = True) -> None:
    """Puts everything between video and codes in evaluation mode and out of training; to repeat after ``train()``.

    Args:
        model: the tokenizer to be trained.
        given: whether its encoder comes from a trained tokenizer.

    Raises:
        ValueError: it does not.
    """
    if not given:
        raise ValueError("Expected a warm start with frozen_encoder, got none; name one, or train the encoder as well.")
    model.encoder_latent_query_embed.requires_grad_(False)
    for name in _ENCODER:
        # Without standardisation there is no such layer.
        if isinstance(part := operator.attrgetter(name)(model), nn.Module):
            part.eval().requires_grad_(False)
