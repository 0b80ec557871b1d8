"""Generates code sequences: [cls], then token after token with a key–value cache, until [stop] or K."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sampling import SamplingOptions, draw_tokens, guided, token_probabilities
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.runtime.seeds import derive_seed

# Ended sequences are removed once they are this share of the batch; removing them copies the cache.
_LEAVE_SHARE = 0.25


@torch.no_grad()
def generate_codes(
    model: ClipGenerator,
    labels: Tensor,
    options: SamplingOptions | None = None,
    *,
    n_tokens: Tensor | None = None,
    seed: int = 0,
    first: int = 0,
    batch_size: int = 64,
    on_clips: Callable[[int], None] | None = None,
) -> CodeSequences:
    """Generates a code sequence for each label.

    A clip's random numbers depend only on the seed and the clip's number, not on the batch. With given lengths, a
    shorter clip is therefore the beginning of a longer one.

    Args:
        model: a trained generator.
        labels: ``int64 [N]``, classes.
        options: of sampling; by default the model's own distribution.
        n_tokens: ``int64 [N]`` in 1 … K, lengths of the sequences: [stop] is impossible before the length and certain
            at it. By default the model decides.
        seed: of the samples.
        first: number of the first clip, to continue a set of clips.
        batch_size: sequences generated at once.
        on_clips: called with the number of clips of each batch.

    Returns:
        N sequences; codes past the length are 0.

    Raises:
        ValueError: a label is not a class, a length is out of range, guidance is asked of a model trained without it,
            or logits are not finite.
    """
    config, options = model.config, options or SamplingOptions()
    classes = len(config.label_names)
    if labels.dim() != 1 or not len(labels) or labels.dtype != torch.int64:
        raise ValueError(f"Expected labels int64 [N] with N ≥ 1, got {labels.dtype} of shape {tuple(labels.shape)}.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"Expected labels in 0…{classes - 1}, got {int(labels.min())}…{int(labels.max())}; the classes are "
            f"{', '.join(config.label_names)}."
        )
    if options.guidance != 1 and not config.unconditional:
        raise ValueError(
            f"Expected guidance 1 for a generator trained with --unconditional 0, got {options.guidance}; it knows no "
            "sequences without a class."
        )
    if n_tokens is not None and (
        n_tokens.shape != labels.shape or not 1 <= int(n_tokens.min()) <= int(n_tokens.max()) <= config.tokens
    ):
        raise ValueError(
            f"Expected a length in 1…{config.tokens} for each of {len(labels)} labels, got {tuple(n_tokens.shape)} in "
            f"{int(n_tokens.min())}…{int(n_tokens.max())}; a clip keeps at least one token and at most all."
        )
    codes = torch.zeros(len(labels), config.tokens, dtype=torch.int64)
    found = torch.zeros(len(labels), dtype=torch.int64)
    for start in range(0, len(labels), batch_size):
        some = slice(start, min(start + batch_size, len(labels)))
        places = range(first + some.start, first + some.stop)
        wanted = None if n_tokens is None else n_tokens[some].to(model.device)
        codes[some], found[some] = _write(model, labels[some].to(model.device), wanted, options, seed, places)
        if on_clips is not None:
            on_clips(len(places))
    return CodeSequences(codes, found, labels.cpu(), config.label_names, config.codebook_size)


def _write(
    model: ClipGenerator, labels: Tensor, wanted: Tensor | None, options: SamplingOptions, seed: int, places: range
) -> tuple[Tensor, Tensor]:
    """One batch: codes ``int64 [B, K]`` and lengths ``int64 [B]``, on the host."""
    from transformers import DynamicCache

    tokens, stop, device = model.config.tokens, model.config.stop, model.device
    streams = [torch.Generator().manual_seed(derive_seed("generate", seed, place)) for place in places]
    noise = torch.stack([torch.rand(tokens, generator=stream) for stream in streams]).to(device)
    codes = torch.zeros(len(labels), tokens, dtype=torch.int64, device=device)
    n_tokens = torch.full((len(labels),), tokens, device=device)
    # With guidance, the second half of the batch repeats the sequences without their class.
    halves = 1 if options.guidance == 1 else 2
    inputs = torch.cat([labels, torch.full_like(labels, model.config.no_class)])[: halves * len(labels)]
    inputs, cache = model.class_tokens(inputs), DynamicCache(config=model.decoder.config)
    rows = torch.arange(len(labels), device=device)  # of the sequences in the batch
    ended = torch.zeros(len(labels), dtype=torch.bool, device=device)
    for step in range(tokens):
        hidden = model.decoder(inputs[:, None], cache=cache, use_cache=True).last_hidden_state[:, -1]
        logits = model.head(hidden).float()
        if halves == 2:
            conditional, unconditional = logits.chunk(2)
            logits = guided(conditional, unconditional, options.guidance)
        if not bool(logits.isfinite().all()):
            raise ValueError(f"Expected finite logits at token {step}, got NaN or infinity; train the generator again.")
        if step == 0 or wanted is not None:
            logits[:, stop] = -torch.inf  # an empty clip decodes to nothing
        drawn = draw_tokens(token_probabilities(logits, options), noise[rows, step])
        stops = ~ended & (drawn == stop if wanted is None else wanted[rows] == step)
        n_tokens[rows[stops]] = step
        ended = ended | stops
        codes[rows[~ended], step] = drawn[~ended]
        if bool(ended.all()):
            break
        # An ended sequence continues with any code until it is removed.
        inputs = drawn.masked_fill(ended, 0).repeat(halves)
        if ended.float().mean() >= _LEAVE_SHARE:
            stay = (~ended).nonzero().squeeze(1)
            both = torch.cat([stay, stay + len(ended)])[: halves * len(stay)]
            cache.batch_select_indices(both)
            inputs, rows, ended = inputs[both], rows[stay], ended[stay]
    return codes.cpu(), n_tokens.cpu()
