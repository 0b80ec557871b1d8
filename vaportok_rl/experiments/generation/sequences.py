"""Code sequences of clips under a length policy, for training a generator and for reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from vaportok_rl.agents.lengths import LengthPolicy
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.envs import Scene, ScoringEngine, TaildropProcess
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.generation.config import GeneratorConfig, GeneratorSizes
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.seeds import derive_seed

TRAIN_FILE = "sequences.safetensors"
"""Training sequences in a generator's run folder."""
# Scenes per batch.
_SCENES = 8


def policy_scenes(
    process: TaildropProcess, policy: LengthPolicy, count: int, seed: int, processes: Processes | None = None
) -> Iterator[tuple[Scene, Tensor]]:
    """Encoded clips and the lengths that a policy chooses, batch by batch.

    The clips follow the training order of the seed. In the training split, each visit is augmented differently.

    Args:
        process: tokenizer, clips, split and allowed lengths; without a table.
        policy: of the lengths.
        count: clips over all processes, rounded up to whole paths in each.
        seed: of the order and of a random policy.
        processes: among which the paths are divided.

    Yields:
        P scenes and their lengths ``int64 [P, L]``.

    Raises:
        ValueError: the process runs on an outcome table.
    """
    engine, source, length = process.engine, process.source, process.path_length
    if not isinstance(engine, ScoringEngine):
        raise ValueError("Expected a tokenizer to encode clips, got an outcome table; leave --table out.")
    share = processes or Processes()
    scenes = -(-count // (length * share.count)) * share.count
    order = ClipOrder(len(source), seed)
    own = list(share.share(scenes))
    for start in range(0, len(own), _SCENES):
        places = [scene * length for scene in own[start : start + _SCENES]]
        indices = [index for place in places for index in order.take(place, length)]
        visits = [visit for place in places for visit in order.visits(place, length)]
        training = source.split == "train"
        batch = source.training_batch(indices, visits, seed) if training else source.batch(indices)
        shape = (len(places), length)
        scene = engine.encode(*(part.unflatten(0, shape) for part in (batch.clips, batch.labels, batch.ids)))
        generator = torch.Generator().manual_seed(derive_seed("lengths", seed, places[0]))
        yield scene, process.token_range.clip_paths(policy(scene, generator).n_tokens)


def encode_sequences(
    process: TaildropProcess,
    policy: LengthPolicy,
    count: int,
    seed: int = 0,
    *,
    processes: Processes | None = None,
    on_clips: Callable[[int], None] | None = None,
) -> CodeSequences:
    """The sequences of `policy_scenes` in order, equal on every process.

    Args:
        process: see `policy_scenes`.
        policy: see `policy_scenes`.
        count: sequences.
        seed: see `policy_scenes`.
        processes: among which the clips are divided.
        on_clips: called with the number of clips of each batch.
    """
    share = processes or Processes()
    parts = []
    for scene, n_tokens in policy_scenes(process, policy, count, seed, share):
        parts.append(torch.cat([scene.codes, n_tokens[..., None], scene.labels[..., None]], -1))
        if on_clips is not None:
            on_clips(n_tokens.numel() * share.count)
    rows = share.gather(torch.cat(parts), 0).flatten(0, 1)[:count].cpu()
    return CodeSequences(
        rows[:, :-2].contiguous(),
        rows[:, -2].contiguous(),
        rows[:, -1].contiguous(),
        tuple(process.source.label_names),
        process.engine.config.codebook_size,
    )


def generator_config(
    sizes: GeneratorSizes, process: TaildropProcess, sequences: CodeSequences, lengths: str, unconditional: float
) -> GeneratorConfig:
    """The configuration of a generator of a process's codes.

    Args:
        sizes: of the network.
        process: its tokenizer.
        sequences: to train on.
        lengths: name of the policy that chose their lengths.
        unconditional: see `GeneratorTraining`.
    """
    config = process.engine.config
    return GeneratorConfig(
        **asdict(sizes),
        tokens=config.tokens,
        codebook_size=config.codebook_size,
        label_names=sequences.label_names,
        tokenizer=process.tokenizer,
        weights=weights_digest(process.tokenizer)[:16],
        lengths=lengths,
        unconditional=unconditional,
    )
