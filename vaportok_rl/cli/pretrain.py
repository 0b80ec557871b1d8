"""``vaportok-rl pretrain``: trains a tokenizer, its prior and its taildrop module."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_type_hints

import torch
import tyro
from rich.console import Console
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vaportok_rl.cli.progress import progress_bar, told_when_interrupted
from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.clips.footage.source import Starts
from vaportok_rl.evaluation import clip_batches, rate_distortion
from vaportok_rl.experiments.console import show_rate_distortion
from vaportok_rl.experiments.pretraining_pictures import draw_run
from vaportok_rl.experiments.reports.pictures import to_frames
from vaportok_rl.experiments.run_folder import CONFIG_FILE, create_run_folder, write_config
from vaportok_rl.runtime.compute import ComputeLog
from vaportok_rl.runtime.declared import check_fields
from vaportok_rl.runtime.held_folders import hold_run_folder, release_run_folder
from vaportok_rl.runtime.machine import usable_device
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.tokenizer import PRESETS, VaporTok
from vaportok_rl.tokenizer.config import ComplexityConfig, Strategy
from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.recipe_files import read_recipe
from vaportok_rl.tokenizer.pretraining.resuming import STATE_FILE
from vaportok_rl.tokenizer.pretraining.warm_start import check_frozen

VALIDATION_SEED = 1
"""Of the held-out clips by which settings are chosen: procedural clips and games that are not those of the test, whose
seed is 0. Footage has one held-out part for both."""


@dataclass(frozen=True)
class Pretrain:
    """Train a tokenizer with its prior and taildrop module on clips.

    Every setting of a recipe is also an option (`--warmup 0.05`); only the usual ones are listed.

    Writes a resumable training state, the weights (`model/`, loadable with `VaporTok.from_pretrained`), TensorBoard
    events and a rate–distortion table. Ctrl-C saves; the same command with `--resume` continues with bitwise equal
    results. On several processes: `torchrun --nproc-per-node N -m vaportok_rl pretrain …`, or `accelerate launch -m
    vaportok_rl …`.
    """

    recipe: str | None = None
    """A file of settings, which other options override: `nano` (of the shipped weights), `small`, or the path of a TOML
    file."""
    preset: str = "nano"
    """Geometry: nano, small, vaportok-b or larp-l."""
    clips: tuple[str, ...] = ("procedural",)
    """Training clips: `procedural`, `gym:ID,ID,…`, `ucf101:FOLDER`, `kinetics:FILE.csv`, a video file, a folder, or a
    glob pattern. Several are read in turn, in equal shares; name one twice to double its share."""
    starts: Starts | None = None
    """Of footage: `grid` for all non-overlapping clips of a file, `random` for one clip per file, at a random start on
    each visit; by default `random` for UCF101 and Kinetics and `grid` for other files."""
    warm_start: str | None = None
    """Weights to start from, as far as they fit: a name, a folder, a hub id, or LARP's folder or `.pth`."""
    out: Path | None = None
    """Run folder; `runs/<time>-pretrain` if not given. It must be new, unless --resume."""
    resume: bool = False
    """Continue the run in --out."""
    strategy: Strategy = "sample"
    """Taildrop strategy, kept with the weights: `naive`, `argmax`, `sample` or `pre-sample`."""
    device: str = "cpu"
    """`cpu` or `cuda`; under `torchrun` or `accelerate launch` each process takes its own CUDA device."""
    workers: int = 0
    """Processes that decode clips; 0 decodes between the steps."""
    validation_clips: int = 256
    """Maximum number of held-out clips to validate on."""
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)

    @classmethod
    def read_first(cls, arguments: list[str]) -> tuple[Pretrain, list[str]]:
        """The command with the recipe's settings and those that `--help` does not list, and the other arguments."""
        parser = argparse.ArgumentParser("vaportok-rl pretrain", add_help=False, allow_abbrev=False)
        parser.add_argument("--recipe")
        hints = get_type_hints(PretrainConfig, include_extras=True)
        for entry in dataclasses.fields(PretrainConfig):
            if tyro.conf.Suppress in getattr(hints[entry.name], "__metadata__", ()):
                kind = str if entry.default is None else type(entry.default)
                parser.add_argument(f"--{entry.name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS)
        found, others = parser.parse_known_args(arguments)
        given = vars(found)
        recipe = given.pop("recipe")
        command = cls() if recipe is None else cls.from_recipe(recipe)
        return dataclasses.replace(command, config=dataclasses.replace(command.config, **given)), others

    @classmethod
    def from_recipe(cls, name: str) -> Pretrain:
        """The command with a recipe's settings; see `read_recipe`.

        Raises:
            ValueError: there is no such recipe, or a setting in it is unknown or out of range.
            TypeError: a setting is of another type.
        """
        settings = read_recipe(name)
        weights = settings.pop("weights", {})
        if not isinstance(weights, Mapping):
            raise ValueError(
                f"Expected a table [weights] of loss terms in the recipe {name}, got {weights!r}; write one."
            )
        own = ("preset", "clips", "starts", "warm_start", "strategy", "workers", "validation_clips")
        names = {*own, *(entry.name for entry in dataclasses.fields(PretrainConfig))}
        terms = {entry.name for entry in dataclasses.fields(LossWeights)}
        for known, given in ((names, settings), (terms, weights)):
            for key in given:
                if key not in known:
                    hint = did_you_mean(key, known, f"its settings are {', '.join(sorted(known))}.")
                    raise ValueError(f"Expected settings of pretrain in the recipe {name}, got {key!r}; {hint}")
        mine = {key: settings.pop(key) for key in own if key in settings}
        command = cls(recipe=name, config=PretrainConfig(**settings, weights=LossWeights(**weights)), **mine)
        check_fields(command)
        return command

    def run(self, console: Console) -> None:
        """Runs the command."""
        if self.preset not in PRESETS:
            raise ValueError(
                f"Expected a preset among {', '.join(PRESETS)}, got {self.preset!r}; a preset is a geometry, not a "
                "checkpoint."
            )
        if self.out is None and Processes.launched().count > 1:
            raise ValueError("Expected --out with several processes, got none; name the run folder they share.")
        if self.resume and self.out is None:
            raise ValueError("Expected --out with --resume, got none; name the run folder to continue.")
        check_frozen(self.config, given=self.warm_start is not None or self.resume)
        preset = PRESETS[self.preset]
        geometry = dataclasses.replace(preset, taildrop=dataclasses.replace(preset.taildrop, strategy=self.strategy))
        train, held_out = (
            open_clips(
                self.clips, split=split, frames=geometry.frames, size=geometry.size, seed=seed, starts=self.starts
            )
            for split, seed in (("train", 0), ("test", VALIDATION_SEED))
        )
        # Only one process makes the folder; the others may find it there already.
        processes = Processes.start(self.device)
        usable_device(self.device)
        folder = self._take_folder() if processes.is_main else self.out or Path()
        compute = ComputeLog(folder, self.device) if processes.is_main else None
        # A run that ended before its first checkpoint starts again.
        resumes = self.resume and (folder / STATE_FILE).is_file()
        trainer = Pretrainer(
            geometry,
            self.config,
            train,
            folder,
            self.device,
            VaporTok.from_pretrained(self.warm_start) if self.warm_start and not resumes else None,
            self.workers,
            resumes,
        )
        if compute is None:
            trainer.run()
            return
        if resumes:
            console.print(f"resuming {folder} at step {trainer.step}", highlight=False)
        else:
            write_config(folder, dataclasses.replace(self, out=folder, config=trainer.config))
        console.print(f"training clips: {train.describe()}", highlight=False, soft_wrap=True)
        console.print(describe_complexity(trainer.model.config.complexity), highlight=False, soft_wrap=True)
        if trainer.left_out:
            names = ", ".join(trainer.left_out)
            console.print(f"not in the warm start, so untrained: {names}", highlight=False, soft_wrap=True)
        self._watch(console, trainer, held_out, compute)
        if trainer.loader.skipped:
            names = ", ".join(path.name for path in list(trainer.loader.skipped)[:5])
            console.print(f"files with unreadable parts: {len(trainer.loader.skipped)} ({names}…)", soft_wrap=True)
        console.print(
            f"{trainer.step} steps, {trainer.step * self.config.batch_size} clips, {trainer.seconds / 3600:.2f} h of "
            f"training; weights in {folder / 'model'}",
            highlight=False,
            soft_wrap=True,
        )
        drawn = draw_run(folder, trainer.weights.eval(), held_out)
        console.print(compute.write().describe(), highlight=False, soft_wrap=True)
        console.print("written: " + ", ".join(map(str, drawn)), highlight=False, soft_wrap=True)
        release_run_folder(folder)

    def _take_folder(self) -> Path:
        """Creates the run folder, or takes the one to resume; one process holds it."""
        if not self.resume or self.out is None:
            return create_run_folder(Path("runs"), "pretrain", self.out)
        hold_run_folder(self.out)
        if not any((self.out / name).is_file() for name in (STATE_FILE, CONFIG_FILE)):
            raise FileNotFoundError(
                f"Expected a run to resume in {self.out}, found neither {STATE_FILE} nor {CONFIG_FILE}; start it "
                "without --resume."
            )
        return self.out

    def _watch(self, console: Console, trainer: Pretrainer, held_out: ClipSource, compute: ComputeLog) -> None:
        """Runs the trainer with progress bar, TensorBoard and validation."""
        folder, steps = trainer.folder, self.config.steps
        # Steps after the last checkpoint are repeated.
        writer = SummaryWriter(str(folder), purge_step=trainer.step + 1)

        def validate(model: VaporTok, step: int) -> None:
            figures = rate_distortion(model, clip_batches(held_out, self.validation_clips))
            for n, quality, variance, accuracy in zip(
                figures.lengths, figures.psnr, figures.explained_variance, figures.prior_top5, strict=True
            ):
                writer.add_scalar(f"held_out/psnr/{n}", quality, step)
                writer.add_scalar(f"held_out/explained_variance/{n}", variance, step)
                writer.add_scalar(f"held_out/prior_top5/{n}", accuracy, step)
            writer.add_scalar("held_out/codes_used", figures.codes_used, step)
            writer.add_image("held_out/reconstructions", validation_sheet(model, held_out[0]), step)
            if step == steps:
                with whole_write(folder / "rate_distortion.md") as scratch:
                    scratch.write_text(figures.markdown() + "\n")
                show_rate_distortion(console, figures)
            writer.flush()  # before the checkpoint, after which nothing would log this step again

        with progress_bar(console) as progress, contextlib.closing(writer):
            task = progress.add_task("steps", total=steps, completed=trainer.step, live="")

            def on_step(step: int, terms: Mapping[str, Tensor]) -> None:
                if step % 10 == 0 or step == steps:
                    values = {name: float(value) for name, value in terms.items()}
                    for name, value in values.items():
                        writer.add_scalar(f"train/{name}", value, step)
                    writer.flush()
                    progress.update(task, completed=step, live=f"loss {values['loss']:.4f}  l1 {values['l1']:.4f}")
                    compute.tick()

            with told_when_interrupted(console, trainer, folder / STATE_FILE), contextlib.ExitStack() as ending:
                ending.callback(compute.write)
                trainer.run(on_step, validate)


def describe_complexity(complexity: ComplexityConfig) -> str:
    """The calibration in one line: minimum, median and maximum of both complexities on the training clips."""
    spatial, temporal = complexity.spatial_quantiles, complexity.temporal_quantiles
    middle = len(spatial) // 2
    return (
        f"complexity of the training clips (minimum / median / maximum): SC {spatial[0]:.2f} / {spatial[middle]:.2f} / "
        f"{spatial[-1]:.2f} bits, TC {temporal[0]:.2f} / {temporal[middle]:.2f} / {temporal[-1]:.2f} grey levels; "
        f"temporal share of the score {complexity.temporal_share}"
    )


def validation_sheet(model: VaporTok, clip: Tensor) -> Tensor:
    """The middle frame of a clip and of its reconstructions at increasing lengths: ``float32 [3, H, N·W]``."""
    codes = model.encode(clip[None].to(model.device)).codes
    lengths = sorted({1, min(4, codes.shape[1]), min(16, codes.shape[1]), codes.shape[1]})
    shown = [clip.float() / 255] + [model.decode(codes, n)[0].cpu() for n in lengths]
    frames = [torch.from_numpy(to_frames(video)[clip.shape[1] // 2]) for video in shown]
    return torch.cat(frames, dim=1).permute(2, 0, 1).float() / 255
