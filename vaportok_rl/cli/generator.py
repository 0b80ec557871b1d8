"""``vaportok-rl generator``: trains the downstream generator on a tokenizer's codes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from torch import Tensor

from vaportok_rl.cli.progress import progress_bar, told_when_interrupted
from vaportok_rl.experiments.run_folder import (
    CONFIG_FILE,
    check_settings_unchanged,
    create_run_folder,
    preparing,
    write_config,
)
from vaportok_rl.generation.config import GeneratorConfig, GeneratorSizes
from vaportok_rl.generation.model import GENERATOR_FILE, ClipGenerator, check_transformers
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.generation.training import GeneratorTrainer, GeneratorTraining, held_out_loss
from vaportok_rl.runtime.compute import ComputeLog
from vaportok_rl.runtime.declared import AT_LEAST_1, check_fields
from vaportok_rl.runtime.held_folders import hold_run_folder, release_run_folder
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer import PrecisionChoice
from vaportok_rl.tokenizer.pretraining.resuming import MODEL_FOLDER, STATE_FILE

HELD_OUT_FILE = "held_out_sequences.safetensors"
# Clips per path, for policies that observe whole paths.
_PATH = 8


@dataclass(frozen=True)
class GeneratorCommand:
    """Train the downstream generator: a LLaMA-style decoder of the codes that a length policy keeps of labelled clips.

    Writes the code sequences, a resumable training state, the weights (`model/`) and TensorBoard events. Ctrl-C saves;
    the same command with `--resume` continues with bitwise equal results. On several processes:
    `torchrun --nproc-per-node N -m vaportok_rl generator train …`.
    """

    action: Annotated[Literal["train"], tyro.conf.Positional]
    """`train`."""
    tokenizer: str = "nano"
    """Tokenizer whose codes are learnt: a shipped name, a checkpoint folder, or a hub id."""
    clips: tuple[str, ...] = ("procedural",)
    """Labelled training clips, each as `--clips` of `pretrain` takes them."""
    lengths: str = "argmax"
    """Policy that chooses how many tokens of each clip are kept: anything that `rollout --policy` takes (`argmax`,
    `naive`, `fixed:32`, a trained agent's run folder, …)."""
    sequences: Annotated[int, AT_LEAST_1] = 32_768
    """Clips encoded before training; beyond the number of clips, each further visit is augmented differently."""
    held_out: Annotated[int, AT_LEAST_1] = 512
    """Held-out clips for the loss."""
    device: str = "cpu"
    """`cpu` or `cuda`; under `torchrun` each process takes its own CUDA device."""
    precision: PrecisionChoice = "auto"
    """Precision of the tokenizer: `float32`, `bfloat16`, or `auto`."""
    trust_archives: bool = False
    """Read an agent from Stable-Baselines3's archive (.zip) too, which runs whatever code it holds."""
    sizes: Annotated[GeneratorSizes, tyro.conf.arg(name="")] = field(default_factory=GeneratorSizes)
    training: Annotated[GeneratorTraining, tyro.conf.arg(name="")] = field(default_factory=GeneratorTraining)
    out: Path | None = None
    """Run folder; `runs/<time>-generator` if not given. It must be new, unless --resume."""
    resume: bool = False
    """Continue the run in --out."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        check_fields(self)
        check_transformers()
        if self.out is None and (self.resume or Processes.launched().count > 1):
            raise ValueError("Expected --out with --resume or several processes, got none; name the run folder.")
        processes = Processes.start(self.device)
        folder = self._take_folder() if processes.is_main else self.out or Path()
        compute = ComputeLog(folder, self.device) if processes.is_main else None
        with preparing(folder) if processes.is_main and not self.resume else contextlib.nullcontext():
            train, held_out, unit_codes, config = self._prepare(folder, processes, console)
        resumes = processes.all_agree(self.resume and (folder / STATE_FILE).is_file())
        trainer = GeneratorTrainer(
            config,
            self.training,
            train,
            folder,
            self.device,
            unit_codes=unit_codes,
            processes=processes,
            resume=resumes,
        )
        if compute is None or held_out is None:
            trainer.run()
            return
        if resumes:
            console.print(f"resuming {folder} at step {trainer.step}", highlight=False, soft_wrap=True)
        kept, size = train.n_tokens.float(), sum(value.numel() for value in trainer.model.parameters())
        console.print(
            f"{len(train)} sequences of {len(config.label_names)} classes, {kept.mean():.1f} tokens each "
            f"({int(kept.min())}…{int(kept.max())}); {size:,} parameters",
            highlight=False,
            soft_wrap=True,
        )
        self._watch(console, trainer, held_out, compute)
        console.print(compute.write().describe(), highlight=False, soft_wrap=True)
        console.print(
            f"{trainer.step} steps, {trainer.seconds / 60:.1f} min of training; weights in "
            f"{folder / MODEL_FOLDER / GENERATOR_FILE}. Next: vaportok-rl generate {folder}",
            highlight=False,
            soft_wrap=True,
        )
        release_run_folder(folder)

    def _take_folder(self) -> Path:
        """Makes the run folder, or takes that of the run to continue."""
        if not self.resume or self.out is None:
            folder = create_run_folder(Path("runs"), "generator", self.out)
            write_config(folder, dataclasses.replace(self, out=None))
            return folder
        hold_run_folder(self.out)
        if not (self.out / CONFIG_FILE).is_file():
            raise FileNotFoundError(
                f"Expected a run to resume in {self.out}, found no {CONFIG_FILE}; start it without --resume."
            )
        # The trainer compares sizes and training with those in its state.
        free = ("out", "resume", "device", "trust_archives", "sizes", "training")
        check_settings_unchanged(self.out, self, free)
        return self.out

    def _prepare(
        self, folder: Path, processes: Processes, console: Console
    ) -> tuple[CodeSequences, CodeSequences | None, Tensor, GeneratorConfig]:
        """Training and (on the main process) held-out sequences, the code vectors and the generator's configuration."""
        from vaportok_rl.agents import build_length_policy
        from vaportok_rl.envs import TaildropProcess
        from vaportok_rl.experiments.generation.sequences import TRAIN_FILE, encode_sequences, generator_config

        clips = self.clips[0] if len(self.clips) == 1 else self.clips
        found: list[CodeSequences | None] = []
        for split, file, count in (("train", TRAIN_FILE, self.sequences), ("test", HELD_OUT_FILE, self.held_out)):
            share = processes if split == "train" else Processes()
            process = TaildropProcess(
                tokenizer=self.tokenizer,
                clips=clips,
                split=split,
                device=self.device,
                precision=self.precision,
                path_length=_PATH,
            )
            if split == "test" and not processes.is_main:
                found.append(None)
                continue
            if share.all_agree(self.resume and (folder / file).is_file()):
                found.append(CodeSequences.load(folder / file))
                continue
            with progress_bar(console) as progress:
                task = progress.add_task(f"encoding {split} clips", total=count, live=self.lengths)
                sequences = encode_sequences(
                    process,
                    build_length_policy(self.lengths, process, trust_archives=self.trust_archives),
                    count,
                    self.training.seed,
                    processes=share,
                    on_clips=partial(progress.advance, task),
                )
            found.append(sequences)
            if processes.is_main:
                sequences.save(folder / file)
        train, held_out = found
        assert train is not None
        config = generator_config(self.sizes, process, train, self.lengths, self.training.unconditional)
        return train, held_out, process.engine.world.bottleneck.regularizer.unit_codes(), config

    def _watch(self, console: Console, trainer: GeneratorTrainer, held_out: CodeSequences, compute: ComputeLog) -> None:
        """Runs the trainer with progress bar, TensorBoard and validation."""
        from torch.utils.tensorboard import SummaryWriter

        folder, steps = trainer.folder, self.training.steps
        writer = SummaryWriter(str(folder), purge_step=trainer.step + 1)
        last = [float("nan")]

        def validate(model: ClipGenerator, step: int) -> None:
            last[0] = held_out_loss(model, held_out)
            writer.add_scalar("held_out/loss", last[0], step)
            writer.flush()

        with progress_bar(console) as progress, contextlib.closing(writer):
            task = progress.add_task("steps", total=steps, completed=trainer.step, live="")

            def on_step(step: int, found: Mapping[str, float]) -> None:
                if step % 10 == 0 or step == steps:
                    for name, value in found.items():
                        writer.add_scalar(f"train/{name}", value, step)
                    live = f"loss {found['loss']:.3f}  held out {last[0]:.3f} nats per token"
                    progress.update(task, completed=step, live=live)
                    compute.tick()

            with told_when_interrupted(console, trainer, folder / STATE_FILE), contextlib.ExitStack() as ending:
                ending.callback(compute.write)
                trainer.run(on_step, validate)
        if not math.isnan(last[0]):  # a finished run that is resumed
            console.print(f"held-out loss {last[0]:.3f} nats per token", highlight=False)
