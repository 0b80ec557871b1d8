"""``vaportok-rl pretrain``: trains a tokenizer, its prior and its taildrop module."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.clips import open_clips
from vaportok_rl.evaluation import clip_batches, rate_distortion
from vaportok_rl.experiments.pictures import to_frames
from vaportok_rl.experiments.run_folder import create_run_folder, write_config
from vaportok_rl.tokenizer import PRESETS, VaporTok
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer


@dataclass(frozen=True)
class Pretrain:
    """Train a tokenizer with its prior and taildrop module on clips.

    Writes a resumable training state, the weights (`model/`, loadable with `VaporTok.from_pretrained`), TensorBoard
    events and a rate–distortion table. Ctrl-C saves; the same command with `--resume` continues to the bit.
    """

    preset: str = "nano"
    """Geometry: nano, vaportok-b or larp-l."""
    clips: tuple[str, ...] = ("procedural",)
    """Training clips: `procedural`, `gym:ID,ID,…`, a video file, a folder, or a glob pattern; several take turns."""
    warm_start: str | None = None
    """Start from this checkpoint's weights (a shipped name, a folder or a hub id) with a fresh taildrop module."""
    out: Path | None = None
    """Run folder; `runs/<time>-pretrain` if not given. It must be new, unless --resume."""
    resume: bool = False
    """Continue the run in --out."""
    device: str = "cpu"
    """torch device."""
    validation_clips: int = 256
    """Most held-out clips to validate on."""
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)

    def run(self, console: Console) -> None:
        """Runs the command."""
        if self.preset not in PRESETS:
            raise ValueError(
                f"Expected a preset among {', '.join(PRESETS)}, got {self.preset!r}; a preset is a geometry, not a "
                "checkpoint."
            )
        if self.resume and self.out is None:
            raise ValueError("Expected --out with --resume, got none; name the run folder to continue.")
        geometry = PRESETS[self.preset]
        sources = {
            split: open_clips(self.clips, split=split, frames=geometry.frames, size=geometry.size)
            for split in ("train", "test")
        }
        if self.resume and self.out is not None:
            folder = self.out
        else:
            folder = create_run_folder(Path("runs"), "pretrain", self.out)
        warm_start = VaporTok.from_pretrained(self.warm_start) if self.warm_start else None
        trainer = Pretrainer(geometry, self.config, sources["train"], folder, self.device, warm_start)
        if self.resume:
            trainer.load()
            console.print(f"resuming {folder} at step {trainer.step}", highlight=False)
        else:
            write_config(folder, dataclasses.replace(self, out=folder))
        writer = SummaryWriter(str(folder))

        def validate(model: VaporTok, step: int) -> None:
            figures = rate_distortion(model, clip_batches(sources["test"], self.validation_clips))
            for n, quality, variance, accuracy in zip(
                figures.lengths, figures.psnr, figures.explained_variance, figures.prior_top5, strict=True
            ):
                writer.add_scalar(f"held_out/psnr/{n}", quality, step)
                writer.add_scalar(f"held_out/explained_variance/{n}", variance, step)
                writer.add_scalar(f"held_out/prior_top5/{n}", accuracy, step)
            writer.add_scalar("held_out/codes_used", figures.codes_used, step)
            writer.add_image("held_out/reconstructions", validation_sheet(model, sources["test"][0]), step)
            if step == self.config.steps:
                (folder / "rate_distortion.md").write_text(figures.markdown() + "\n")
                console.print(figures.markdown(), highlight=False, markup=False)

        with progress_bar(console) as progress:
            task = progress.add_task("steps", total=self.config.steps, completed=trainer.step, live="")

            def on_step(step: int, terms: Mapping[str, Tensor]) -> None:
                if step % 10 == 0 or step == self.config.steps:
                    values = {name: float(value) for name, value in terms.items()}
                    for name, value in values.items():
                        writer.add_scalar(f"train/{name}", value, step)
                    progress.update(task, completed=step, live=f"loss {values['loss']:.4f}  l1 {values['l1']:.4f}")

            try:
                trainer.run(on_step, validate)
            except KeyboardInterrupt:
                path = trainer.save()
                console.print(f"[yellow]interrupted[/] at step {trainer.step}; saved {path}. Continue with --resume.")
                raise
        writer.close()
        console.print(
            f"{trainer.step} steps, {trainer.step * self.config.batch_size} clips, {trainer.seconds / 3600:.2f} h of "
            f"training; weights in {folder / 'model'}",
            highlight=False,
            soft_wrap=True,
        )


def validation_sheet(model: VaporTok, clip: Tensor) -> Tensor:
    """The middle frame of a clip and of its reconstructions at growing lengths: ``float32 [3, H, N·W]``."""
    codes = model.encode(clip[None].to(model.device)).codes
    lengths = sorted({1, min(4, codes.shape[1]), min(16, codes.shape[1]), codes.shape[1]})
    shown = [clip.float() / 255] + [model.decode(codes, n)[0].cpu() for n in lengths]
    frames = [torch.from_numpy(to_frames(video)[clip.shape[1] // 2]) for video in shown]
    return torch.cat(frames, dim=1).permute(2, 0, 1).float() / 255
