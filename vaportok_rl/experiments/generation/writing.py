"""Decodes and writes a generator's clips: MP4 files, a contact sheet per class, and the codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.experiments.generation.clip_files import overview, write_clip, write_sheet
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.generation.watermark import mark_clips
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.tokenizer import VaporTok

CODES_FILE, OVERVIEW_FILE = "codes.safetensors", "overview.png"
# Clips decoded per batch, and clips on a class's contact sheet.
_DECODED, _ON_SHEET = 64, 8


def check_tokenizer(model: ClipGenerator, tokenizer: str, world: VaporTok) -> None:
    """Checks that a tokenizer is the one that a generator was trained on.

    Raises:
        ValueError: it has other weights or another geometry.
    """
    config, found = model.config, weights_digest(tokenizer)[:16]
    here = (world.config.tokens, world.config.codebook_size, found)
    if here != (config.tokens, config.codebook_size, config.weights):
        raise ValueError(
            f"Expected the tokenizer that the generator was trained on ({config.tokenizer}: K = {config.tokens}, V = "
            f"{config.codebook_size}, weights {config.weights}), got {tokenizer} (K = {here[0]}, V = {here[1]}, "
            f"weights {found}); name it with --tokenizer."
        )


def labels_of(model: ClipGenerator, classes: Sequence[str], count: int) -> Tensor:
    """``count`` labels of each named class, class after class; of all classes if none is named.

    Raises:
        ValueError: there is no such class.
    """
    names = model.config.label_names
    for name in classes:
        if name not in names:
            hint = did_you_mean(name, names, "name some of them, or none for all.")
            raise ValueError(f"Expected classes among {', '.join(names)}; got {name!r}; {hint}")
    chosen = [names.index(name) for name in dict.fromkeys(classes)] if classes else list(range(len(names)))
    return torch.tensor(chosen).repeat_interleave(count)


@torch.no_grad()
def decode_clips(world: VaporTok, sequences: CodeSequences) -> Tensor:
    """Decodes sequences to ``uint8 [N, 3, T, H, W]`` in host memory."""
    parts = []
    for start in range(0, len(sequences), _DECODED):
        some = sequences.take(range(start, min(start + _DECODED, len(sequences))))
        longest = int(some.n_tokens.max())
        video = world.decode(some.codes[:, :longest].to(world.device), some.n_tokens.to(world.device))
        parts.append((video * 255).round().to(torch.uint8).cpu())
    return torch.cat(parts)


def write_clips(
    folder: Path,
    clips: Tensor,
    sequences: CodeSequences,
    payload: int | None,
    fps: int = 8,
    on_clip: Callable[[], None] | None = None,
) -> list[Path]:
    """Writes clips by class: ``<class>/000.mp4``, …, ``<class>.png``, an overview and the codes.

    Args:
        folder: an existing one.
        clips: ``uint8 [N, 3, T, H, W]``.
        sequences: of the clips.
        payload: of the watermark in the MP4 files; None for no watermark.
        fps: frames per second.
        on_clip: called after each MP4 file.

    Returns:
        Each class's folder and contact sheet, the overview and the file of codes.
    """
    names = sequences.label_names
    written = []
    for label in sorted(set(sequences.labels.tolist())):
        own = clips[sequences.labels == label]
        slug = re.sub(r"\W+", "-", names[label]).strip("-") or str(label)
        place = folder / slug
        place.mkdir()
        for number, clip in enumerate(own if payload is None else mark_clips(own, payload)):
            write_clip(place / f"{number:03d}.mp4", clip, fps)
            if on_clip is not None:
                on_clip()
        written += [place, write_sheet(folder / f"{slug}.png", own[:_ON_SHEET])]
    written.append(save_figure(overview(clips, sequences.labels, names), folder / OVERVIEW_FILE))
    return [*written, sequences.save(folder / CODES_FILE)]
