"""``vaportok-rl generate``: clips of named classes; ``vaportok-rl detect``: tests videos for their watermark."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.generation.sampling import SamplingOptions
from vaportok_rl.runtime.declared import AT_LEAST_1, SEED, check_fields
from vaportok_rl.tokenizer import PrecisionChoice, VaporTok


@dataclass(frozen=True)
class Generate:
    """Generate clips by class with a trained generator: MP4 files, a contact sheet per class, and the codes.

    The MP4 files carry an imperceptible watermark, which `vaportok-rl detect` finds. The same seed gives the
    same clips.
    """

    generator: Annotated[Path, tyro.conf.Positional]
    """Run folder of `vaportok-rl generator train`, or its `generator.safetensors`."""
    tokenizer: str | None = None
    """Tokenizer for decoding; by default the one the generator was trained on."""
    classes: tuple[str, ...] = ()
    """Names of classes; all of them by default."""
    count: Annotated[int, AT_LEAST_1] = 8
    """Clips of each class."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)
    seed: Annotated[int, SEED] = 0
    """Random seed of the sampled tokens."""
    batch_size: Annotated[int, AT_LEAST_1] = 64
    """Clips generated at once."""
    watermark: bool = True
    """Mark the MP4 files as generated."""
    fps: Annotated[int, AT_LEAST_1] = 8
    """Frames per second."""
    device: str = "cpu"
    """torch device."""
    precision: PrecisionChoice = "auto"
    """Precision of the tokenizer: `float32`, `bfloat16`, or `auto`."""
    out: Path | None = None
    """New folder; `runs/<time>-generated` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.generation.writing import check_tokenizer, decode_clips, labels_of, write_clips
        from vaportok_rl.generation.generating import generate_codes
        from vaportok_rl.generation.model import ClipGenerator
        from vaportok_rl.generation.watermark import payload_of

        check_fields(self)
        model = ClipGenerator.load(self.generator, self.device)
        tokenizer = self.tokenizer or model.config.tokenizer
        world = VaporTok.from_pretrained(tokenizer, device=self.device, precision=self.precision)
        check_tokenizer(model, tokenizer, world)
        labels = labels_of(model, self.classes, self.count)
        folder = create_run_folder(Path("runs"), "generated", self.out)
        payload = payload_of(model.fingerprint()) if self.watermark else None
        with progress_bar(console) as progress:
            task = progress.add_task("generating", total=len(labels), live="")
            started = time.monotonic()
            sequences = generate_codes(
                model,
                labels,
                self.sampling,
                seed=self.seed,
                batch_size=self.batch_size,
                on_clips=lambda clips: progress.advance(task, clips),
            )
            clips = decode_clips(world, sequences)
            seconds = time.monotonic() - started
            task = progress.add_task("writing", total=len(labels), live="")
            written = write_clips(folder, clips, sequences, payload, self.fps, lambda: progress.advance(task))
        kept = sequences.n_tokens.float()
        marked = "without a watermark" if payload is None else f"watermark with payload {payload}"
        console.print(
            f"{len(labels)} clips in {seconds:.1f} s ({len(labels) / seconds:.1f} clips/s), {kept.mean():.1f} tokens "
            f"each ({int(kept.min())}…{int(kept.max())}); {marked}",
            highlight=False,
        )
        config = write_config(folder, dataclasses.replace(self, out=None), watermark_payload=payload)
        tell_written(console, folder, [config, *written])


@dataclass(frozen=True)
class Detect:
    """Test video files for the watermark of generated clips; print p-value and payload.

    The p-value is an upper bound on the probability that an unmarked video would look as marked. A file is taken to be
    marked at p ≤ 1e-5.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Video files, each one generated clip, perhaps compressed or resized."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.experiments.generation.clip_files import read_clip
        from vaportok_rl.generation.watermark import THRESHOLD, detect

        if not self.files:
            raise ValueError("Expected at least one video file, got none; name one.")
        for file in self.files:
            found = detect(read_clip(file))
            told = f"marked as generated, payload {found.payload}" if found.marked else "no mark found"
            console.print(
                f"{file}: {told} (p ≤ {found.p_value:.1e}, threshold {THRESHOLD:g})", highlight=False, soft_wrap=True
            )
