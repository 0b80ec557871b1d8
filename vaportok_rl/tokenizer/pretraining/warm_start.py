"""Starting a run from the weights of another tokenizer."""

from __future__ import annotations

import operator

from torch import nn

from vaportok_rl.clips.loading import ClipLoader
from vaportok_rl.tokenizer.lengths import TAILDROP_WEIGHTS
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.unheard_tokens import WAKING_CLIPS, wake_unheard

# From video to codes.
_ENCODER = ("x_embedder", "encoder", "bottleneck.in_linear", "bottleneck.norm_layer", "bottleneck.regularizer")


def require_warm_start(config: PretrainConfig, given: bool) -> None:
    """Refuses settings that keep or mend what nothing gave.

    Args:
        config: the run's settings.
        given: whether the weights come from a trained tokenizer.

    Raises:
        ValueError: they do not, and the settings keep its encoder or its taildrop module, or wake its tokens.
    """
    for setting in ("frozen_encoder", "keep_taildrop", "wake_unheard"):
        if getattr(config, setting) and not given:
            raise ValueError(f"Expected a warm start with {setting}, got none; name one, or leave {setting} out.")


def start_from(model: VaporTok, source: VaporTok, config: PretrainConfig, loader: ClipLoader) -> int:
    """Copies the weights of a trained tokenizer into the one to be trained.

    The taildrop query module starts untrained, since it learns lengths for a run's own clips and strategy, unless
    `PretrainConfig.keep_taildrop`. With `PretrainConfig.wake_unheard`, tokens that the decoder ignores start anew.

    Args:
        model: the tokenizer to be trained, changed in place.
        source: a tokenizer of the same geometry, for instance LARP's.
        config: the run's settings.
        loader: whose first clips show which tokens are ignored.

    Returns:
        How many tokens start anew.

    Raises:
        ValueError: the two differ in geometry; the message names the first weight that does not fit.
    """
    own, given = (
        {
            name: value
            for name, value in each.state_dict().items()
            if config.keep_taildrop or not name.startswith(TAILDROP_WEIGHTS)
        }
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
    if not config.wake_unheard:
        return 0
    clips = loader.first_clips(WAKING_CLIPS)
    return wake_unheard(model, clips, config.wake_unheard, config.seed, new_queries=not config.frozen_encoder)


def freeze_encoder(model: VaporTok) -> None:
    """Puts everything between video and codes in evaluation mode and out of training; to repeat after ``train()``.

    Args:
        model: the tokenizer to be trained.
    """
    model.encoder_latent_query_embed.requires_grad_(False)
    for name in _ENCODER:
        # Without standardisation there is no such layer.
        if isinstance(part := operator.attrgetter(name)(model), nn.Module):
            part.eval().requires_grad_(False)
