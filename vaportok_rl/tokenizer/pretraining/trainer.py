"""The pretraining loop: on one process or several, resumable with bitwise equal results; stops at NaN or infinity."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaportok_rl.clips.loading import ClipLoader
from vaportok_rl.clips.source import ClipSource
from vaportok_rl.runtime.machine import describe_machine, usable_device, warn_if_other_machine
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer.checkpoint import save_checkpoint
from vaportok_rl.tokenizer.complexity import calibrate, clip_complexity
from vaportok_rl.tokenizer.config import ComplexityConfig, VaporTokConfig
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.perceptual import PerceptualDistance
from vaportok_rl.tokenizer.pretraining.adversarial import Critic
from vaportok_rl.tokenizer.pretraining.codebook import CodebookCare, initialize_codes
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.loss import CompleteLoss, StepResult
from vaportok_rl.tokenizer.pretraining.noise import ClipNoise
from vaportok_rl.tokenizer.pretraining.optimizers import build_optimizers, step_optimizers
from vaportok_rl.tokenizer.pretraining.resuming import (
    MODEL_FOLDER,
    STATE_FILE,
    DeferredInterrupt,
    NonFiniteLossError,
    check_settings,
    read_state,
    write_state,
)
from vaportok_rl.tokenizer.pretraining.schedule import Phase, Schedule
from vaportok_rl.tokenizer.pretraining.warm_start import check_frozen, freeze_encoder, start_from


class Pretrainer:
    """Trains one tokenizer, on one process or, under ``torchrun`` or ``accelerate launch``, on many.

    Every random number is a function of the seed, the step and the clip's place in the training order. So a resumed run
    is bitwise equal to an uninterrupted one (on the same processor and number of threads), and several processes train
    on the same clips and random numbers as one.

    Args:
        model_config: geometry and sizes; the complexity tables are calibrated here.
        config: the run's settings.
        source: training clips.
        folder: run folder; the state goes to ``folder/training_state.pt`` and weights to ``folder/model``.
        device: ``"cpu"`` or ``"cuda"``; with several processes each takes its own CUDA device.
        warm_start: a tokenizer whose weights are copied where they fit. None starts from random weights.
        workers: processes that decode clips; 0 decodes in this one.
        resume: continue from ``folder/training_state.pt``.

    Attributes:
        model: the tokenizer in training.
        device: of the tokenizer.
        processes: of the run.
        schedule: learning rate and phases by step.
        step: optimiser steps done.
        seconds: time spent in them.
        left_out: names of weights that the warm start lacks or has in another shape; these start untrained.

    Raises:
        FileNotFoundError: ``resume`` without a state, or LPIPS without its backbone.
        ValueError: clips of another geometry, a batch not divisible by the number of processes, a frozen encoder
            without a warm start, a resumed run with other settings, or settings of ``accelerate launch`` that belong in
            ``config``.

    Warns:
        UserWarning: the run is resumed on another processor or number of threads.
    """

    def __init__(
        self,
        model_config: VaporTokConfig,
        config: PretrainConfig,
        source: ClipSource,
        folder: Path,
        device: str = "cpu",
        warm_start: VaporTok | None = None,
        workers: int = 0,
        resume: bool = False,
    ) -> None:
        if (source.frames, source.size) != (model_config.frames, model_config.size):
            raise ValueError(
                f"Expected clips of {model_config.frames} frames and {model_config.size} pixels, got {source.frames} "
                f"and {source.size}; open the clips with the tokenizer's geometry."
            )
        self.source, self.folder = source, Path(folder)
        _refuse_settings_of_accelerate()
        self.processes = Processes.start(device)
        self.device = usable_device(device)
        state = read_state(self.folder) if resume else None
        self.config = config = config.decided(self.device, state and state["config"])
        self.schedule = Schedule(config)
        check_frozen(config, given=warm_start is not None or state is not None)
        parts = self.processes.count * config.accumulate
        if config.batch_size % parts:
            found = f"processes × accumulate = {parts}, got {config.batch_size}"
            raise ValueError(f"Expected batch_size divisible by {found}; change one of them.")
        self.machine = describe_machine(self.device)
        if state is not None:
            check_settings(self.folder, state, asdict(config), model_config.to_dict(), source.identity)
            warn_if_other_machine(state.get("machine", self.machine), self.machine)
        torch.manual_seed(config.seed)
        self.loader = ClipLoader(
            source,
            config.batch_size,
            seed=config.seed,
            workers=workers,
            processes=self.processes,
        )
        given = None if state is None else VaporTokConfig.from_dict(state["model_config"])
        calibrated = given or replace(model_config, complexity=self._calibrated(model_config.complexity))
        self.model = VaporTok(calibrated, config.precision)  # type: ignore[arg-type]  # no longer "auto"
        self.model = self.model.to(self.device).train()
        self.left_out: list[str] = []
        if warm_start is not None:
            self.left_out = start_from(self.model, warm_start, config.frozen_encoder)
        codebook = "bottleneck.regularizer.embedding.weight"
        self._codebook_given = warm_start is not None and codebook not in self.left_out
        if config.frozen_encoder:
            freeze_encoder(self.model)
        self.average: AveragedModel | None = None
        if config.ema_decay:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        perceptual = None
        if config.weights.perceptual:
            backbone = Path(config.perceptual_backbone) if config.perceptual_backbone else None
            perceptual = PerceptualDistance(config.perceptual_network, backbone).to(self.device)
        self.critic = None
        if config.weights.adversarial:
            self.critic = Critic(calibrated, config, self.device, self.processes)
        self.optimizers = build_optimizers(self.model, config)
        self._loss = CompleteLoss(
            self.model,
            config.weights,
            perceptual,
            self.critic.discriminator if self.critic is not None else None,
            self.processes.mean,
            sampled_codes=not config.frozen_encoder,
        )
        self.care = CodebookCare(calibrated.codebook_size)
        self.step, self.seconds = 0, 0.0
        self._interrupt, self._stop = DeferredInterrupt(), False
        if state is not None:
            self._load(state)

    @property
    def weights(self) -> VaporTok:
        """The tokenizer to validate and save: the moving average if there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def _gathered(self, values: Tensor) -> Tensor:
        """The clips of all processes along the first axis, in training order."""
        return self.processes.gather(values[None], 0).flatten(0, 1)

    def _calibrated(self, complexity: ComplexityConfig) -> ComplexityConfig:
        seen = self.loader.first_clips(self.config.calibration_clips)
        return calibrate(torch.cat([clip_complexity(clips) for clips in seen]), complexity)

    def compute_gradients(self, clips: Tensor, phase: Phase) -> list[StepResult]:
        """Leaves the gradients of one step in the parameters, averaged over processes and accumulated parts.

        Args:
            clips: ``uint8 [B, C, T, H, W]``, this process's part of the step's batch.
            phase: the schedule's values at the step.

        Returns:
            One result for each accumulated part.
        """
        results: list[StepResult] = []
        count = len(clips) // self.config.accumulate
        first = self.step * self.config.batch_size + self.processes.rank * len(clips)
        parts = self.config.accumulate * self.processes.count
        critic = self.critic if phase.adversarial else None
        for part, some in enumerate(clips.split(count)):
            some = some.to(self.device, non_blocking=True)
            # Only dropout uses the global random state.
            torch.manual_seed(derive_seed(self.config.seed, self.step, part, self.processes.rank))
            positions = range(first + part * count, first + (part + 1) * count)
            noise = ClipNoise(self.config.seed, positions, self.device)
            result: StepResult = self._loss(some, phase, noise.uniform)
            (result.loss / parts).backward()
            if critic is not None:
                result.terms.update(critic.compute_gradients(some, result.decoded, parts))
            results.append(result)
        self.processes.sum_gradients(self.model.parameters())
        if critic is not None:
            self.processes.sum_gradients(critic.discriminator.parameters())
        return results

    def train_step(self, clips: Tensor) -> dict[str, Tensor]:
        """Runs one optimiser step and returns its detached terms, means over the accumulated parts.

        Args:
            clips: see `compute_gradients`.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the weights are unchanged.
        """
        phase = self.schedule.phase(self.step)
        critic = self.critic if phase.adversarial else None
        if phase.quantized_share > 0 and not self._codebook_given:
            self._initialize_codebook()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if critic is not None:
            critic.zero_grad()
        results = self.compute_gradients(clips, phase)
        terms = {name: torch.stack([part.terms[name] for part in results]).mean() for name in results[0].terms}
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        terms["gradient_norm"] = norm
        if critic is not None:
            terms["discriminator_gradient_norm"] = critic.clip_gradients()
        self._exchange(terms)
        factor = self.schedule.learning_rate_factor(self.step)
        peaks = {"muon": self.config.muon_learning_rate, "adamw": self.config.adam_learning_rate}
        step_optimizers(self.optimizers, {name: peaks[name] * factor for name in peaks})
        if critic is not None:
            critic.update(factor)
        self.step += 1
        terms["learning_rate_factor"] = torch.tensor(factor)
        if codes := [part.codes for part in results if part.codes is not None]:
            share = self._care_for_codes(torch.cat(codes), torch.cat([part.unit for part in results]))
            terms["codes_used"] = torch.tensor(share)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return terms

    def _exchange(self, terms: Mapping[str, Tensor]) -> None:
        """Makes all processes stop at the same step, after NaN or infinity or a Ctrl-C in one of them."""
        watched = [name for name in terms if name in ("loss", "discriminator") or name.endswith("gradient_norm")]
        wish = torch.tensor(float(self._interrupt.requested), device=self.device)
        means = self.processes.mean(torch.stack([*(terms[name].detach() for name in watched), wish]))
        *found, wishes = means.tolist()
        if not bool(means.isfinite().all()):
            shown = ", ".join(f"{name} {value}" for name, value in zip(watched, found, strict=True))
            raise NonFiniteLossError.of(f"Expected a finite loss and gradient, got {shown}", self.folder, self.step)
        self._stop = wishes > 0

    @torch.no_grad()
    def _initialize_codebook(self) -> None:
        """Initialises the codes by k-means on the latents of the next clips; equal on every process."""
        units = []
        size, share = self.config.batch_size, self.config.batch_size // self.processes.count
        for index in range(max(1, self.config.codebook_clips // size)):
            first = (self.step + index) * size + self.processes.rank * share
            clips = self.loader.clips_at(first, share).to(self.device)
            with self.model.autocast():
                latents = self.model.encoder_latents(clips.float() / 255)
            units.append(self._gathered(self.model.bottleneck.to_unit(latents)).flatten(0, 1).cpu())
        generator = torch.Generator().manual_seed(self.config.seed)
        initialize_codes(self.model.bottleneck.regularizer.embedding, torch.cat(units), generator)
        self._codebook_given = True

    def _care_for_codes(self, codes: Tensor, unit: Tensor) -> float:
        """Counts the codes and revives unused ones at the scheduled steps; returns the fraction in use."""
        self.care.record(self._gathered(codes))
        share = self.care.used_share()
        if self.schedule.revives_codes(self.step):
            generator = torch.Generator().manual_seed(derive_seed("revive", self.config.seed, self.step))
            embedding = self.model.bottleneck.regularizer.embedding
            self.care.revive(embedding, self._gathered(unit), self.optimizers["adamw"], generator)
        return share

    def run(
        self,
        on_step: Callable[[int, Mapping[str, Tensor]], None] | None = None,
        validate: Callable[[VaporTok, int], None] | None = None,
    ) -> None:
        """Trains to the end and writes checkpoints. Ctrl-C finishes the step and saves; another call continues.

        Args:
            on_step: called after each step with the step number and its terms.
            validate: called on the main process every ``validate_every`` steps and at the end, with the weights to
                keep in evaluation mode.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after saving.
            NonFiniteLossError: see `train_step` and `save`.
        """
        if self.step and self.processes.is_main:
            # A kill between writing the state and the weights may have left older weights.
            save_checkpoint(self.weights, self.folder / MODEL_FOLDER)
        self._stop = False
        with self._interrupt, contextlib.closing(self.loader.batches(self.step)) as batches:
            while self.step < self.config.steps:
                started = time.monotonic()
                terms = self.train_step(next(batches))
                self.seconds += time.monotonic() - started
                if on_step is not None:
                    on_step(self.step, terms)
                last = self.step == self.config.steps
                validates = self.processes.is_main and (last or self.step % self.config.validate_every == 0)
                if validate is not None and validates:
                    self.weights.eval()
                    validate(self.weights, self.step)
                    self.weights.train()
                    if self.config.frozen_encoder:
                        freeze_encoder(self.model)
                if last or self._stop or self.step % self.config.save_every == 0:
                    self.save()
                if self._stop and not last:
                    raise KeyboardInterrupt

    def save(self) -> Path:
        """Writes the training state, then the weights, each atomically.

        Returns:
            The state's path.

        Raises:
            NonFiniteLossError: see `write_state`.
        """
        if self.processes.is_main:
            state: dict[str, Any] = {
                "step": self.step,
                "seconds": self.seconds,
                "model": self.model.state_dict(),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "average": None if self.average is None else self.average.state_dict(),
                "critic": None if self.critic is None else self.critic.state_dict(),
                "codes_counted": self.care.counts,
                "codebook_given": self._codebook_given,
                "config": asdict(self.config),
                "model_config": self.model.config.to_dict(),
                "clips": self.source.identity,
                "machine": self.machine,
            }
            write_state(self.folder, state)
            save_checkpoint(self.weights, self.folder / MODEL_FOLDER)
        self.processes.wait()
        return self.folder / STATE_FILE

    def _load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        self.care.counts.copy_(state["codes_counted"])
        self._codebook_given = state["codebook_given"]
        self.step, self.seconds = state["step"], state["seconds"]


def _refuse_settings_of_accelerate() -> None:
    """``accelerate launch`` only starts the processes; its other settings would have no effect.

    Raises:
        ValueError: one is set.
    """
    for option, neutral, instead in (
        ("GRADIENT_ACCUMULATION_STEPS", "1", "pass --accumulate to pretrain instead"),
        ("MIXED_PRECISION", "no", "pass --precision to pretrain instead"),
        ("USE_FSDP", "false", "choose data-parallel training (DDP)"),
        ("USE_DEEPSPEED", "false", "choose data-parallel training (DDP)"),
        ("USE_MEGATRON_LM", "false", "choose data-parallel training (DDP)"),
    ):
        value = os.environ.get(f"ACCELERATE_{option}", neutral)
        if value.lower() != neutral:
            raise ValueError(f"Expected accelerate's {option.lower()} to be {neutral}, got {value}; {instead}.")
