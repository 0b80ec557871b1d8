"""The code sequences that a length policy makes of clips: what a generator learns, and what rFVD decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaportok_rl.agents.lengths import LengthPolicy
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.envs import ScoringEngine, TaildropProcess
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.seeds import derive_seed

# Scenes that are encoded at once.
_SCENES = 8


def policy_batches(
    process: TaildropProcess, policy: LengthPolicy, count: int, seed: int, processes: Processes | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Clips with their codes and the lengths that a policy gives them, in paths of the process's length.

    The clips follow the training order of the seed; of the training split each further visit is augmented differently.

    Args:
        process: tokenizer, clips, split and allowed lengths; not on a table.
        policy: chooses the lengths.
        count: clips, over all processes; rounded up to whole paths for each.
        seed: of the order and of a random policy.
        processes: that share the paths.

    Yields:
        Clips ``uint8 [B, 3, T, H, W]``, codes ``int64 [B, K]``, lengths ``int64 [B]`` and labels ``int64 [B]``.

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
        n_tokens = process.token_range.clip_paths(policy(scene, generator).n_tokens)
        yield batch.clips, scene.codes.flatten(0, 1), n_tokens.flatten(), batch.labels


def encode_sequences(
    process: TaildropProcess,
    policy: LengthPolicy,
    count: int,
    seed: int = 0,
    *,
    processes: Processes | None = None,
    on_clips: Callable[[int], None] | None = None,
) -> CodeSequences:
    """The sequences of `policy_batches`, in order and the same on every process.

    Args:
        process: see `policy_batches`.
        policy: see there.
        count: sequences.
        seed: see there.
        processes: that share the work.
        on_clips: called with the number of clips of each batch.
    """
    share = processes or Processes()
    parts = []
    for clips, codes, n_tokens, labels in policy_batches(process, policy, count, seed, share):
        parts.append(torch.cat([codes, n_tokens[:, None], labels.to(codes.device)[:, None]], 1))
        if on_clips is not None:
            on_clips(len(clips) * share.count)
    by_scene = torch.cat(parts).unflatten(0, (-1, process.path_length))
    rows = share.gather(by_scene, 0).flatten(0, 1)[:count].cpu()
    return CodeSequences(
        rows[:, :-2].contiguous(),
        rows[:, -2].contiguous(),
        rows[:, -1].contiguous(),
        tuple(process.source.label_names),
        process.engine.config.codebook_size,
    )
