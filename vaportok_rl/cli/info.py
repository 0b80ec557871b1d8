"""``vaportok-rl info``: describes a tokenizer and measures its quality on given clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.clips.open import PROCEDURAL
from vaportok_rl.evaluation import clip_batches, own_lengths, rate_distortion
from vaportok_rl.experiments.console import show_rate_distortion
from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.tokenizer import PRESETS, PrecisionChoice, VaporTok, shipped_checkpoints
from vaportok_rl.version import __version__

# Maximum number of files listed per split.
_NAMED_FILES = 40


@dataclass(frozen=True)
class Info:
    """Describe a tokenizer: geometry, parameters and, on given clips, quality against length."""

    tokenizer: Annotated[str, tyro.conf.Positional] = "nano"
    """A shipped name, a checkpoint folder, or a hub id."""
    clips: tuple[str, ...] = ()
    """Clips to describe, each as `--clips` of `train` takes them: their splits, and how many clips each file gives."""
    measure: tuple[str, ...] = ()
    """Clips to measure on: `procedural`, or paths; prints a rate–distortion table for each."""
    every_length: bool = False
    """Measure at every length rather than at a few."""
    count: int = 512
    """Maximum number of clips per split to measure on."""
    device: str = "cpu"
    """torch device."""
    precision: PrecisionChoice = "auto"
    """`float32`, `bfloat16`, or `auto`: `bfloat16` where that is faster."""
    out: Path | None = None
    """Also write the measurements to this Markdown file."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        console.print(
            f"vaportok-rl {__version__}; shipped checkpoints: {', '.join(shipped_checkpoints()) or 'none'}; "
            f"presets for pretraining: {', '.join(PRESETS)}",
            highlight=False,
        )
        world = VaporTok.from_pretrained(self.tokenizer, device=self.device, precision=self.precision)
        config = world.config
        table = Table(title=self.tokenizer, title_justify="left", show_header=False)
        parameters = sum(value.numel() for value in world.parameters())
        policy = sum(value.numel() for value in world.taildrop_module.parameters())
        bits = config.tokens * (config.codebook_size - 1).bit_length()
        for name, value in (
            ("clip", f"{config.frames} frames of {config.size} × {config.size}, patches {config.patches}"),
            ("tokens K", f"{config.tokens}, width {config.width}"),
            ("codebook", f"{config.codebook_size} codes of width {config.code_width}; {bits} bits per clip at n = K"),
            ("depth", f"encoder {config.encoder_depth}, decoder {config.decoder_depth}, prior {config.prior.layers}"),
            ("parameters", f"{parameters:,}, of which the taildrop query module has {policy:,}"),
        ):
            table.add_row(name, value)
        console.print(table)
        for clips in self.clips:
            for split in ("train", "test"):
                source = open_clips(clips, split=split, frames=config.frames, size=config.size)
                console.print(f"\n{source.describe()}; identity {source.identity}", highlight=False, soft_wrap=True)
                files = list(source.files.items())
                for path, count in files[:_NAMED_FILES]:
                    console.print(f"  {path}: {count} clips", highlight=False, soft_wrap=True)
                if len(files) > _NAMED_FILES:
                    console.print(f"  and {len(files) - _NAMED_FILES} more files", highlight=False)
        pages = []
        for clips in self.measure:
            # Procedural clips: only held-out ones. Footage: all, since no shipped tokenizer was trained on it.
            splits = ("test",) if clips == PROCEDURAL else ("train", "test")
            sources = [open_clips(clips, split=split, frames=config.frames, size=config.size) for split in splits]
            lengths = range(1, config.tokens + 1) if self.every_length else None
            figures = rate_distortion(world, self._batches(sources), lengths)
            tokens, rank = own_lengths(world, self._batches(sources))
            before = f"{figures.clips} clips, {100 * figures.codes_used:.1f} % of the codes in use\n"
            after = (
                f"\n{figures.monotony()} The taildrop module's most probable length keeps {tokens:.1f} tokens on "
                f"average; its rank correlation with the clips' complexity is {rank:.2f}."
            )
            pages.append(f"{before}\n{figures.markdown()}\n{after}")
            console.print(f"\n{clips}: {before}", highlight=False, soft_wrap=True)
            show_rate_distortion(console, figures)
            console.print(after, highlight=False, soft_wrap=not console.is_terminal)
        if self.out is not None:
            with whole_write(self.out) as scratch:
                scratch.write_text("\n\n".join(pages) + "\n", encoding="utf-8")

    def _batches(self, sources: Iterable[ClipSource]) -> Iterator[Tensor]:
        return chain.from_iterable(clip_batches(source, self.count) for source in sources)
