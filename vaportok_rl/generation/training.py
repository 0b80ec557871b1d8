"""The generator's training loop: on one process or several, resumable with bitwise equal results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.generation.config import GeneratorConfig
from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.runtime.declared import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range, check_fields
from vaportok_rl.runtime.machine import describe_machine, usable_device, warn_if_other_machine
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer.pretraining.optimizers import SinglePrecisionMuon, step_optimizers
from vaportok_rl.tokenizer.pretraining.resuming import (
    MODEL_FOLDER,
    STATE_FILE,
    DeferredInterrupt,
    NonFiniteLossError,
    check_unchanged,
    read_state,
    write_state,
)

# Sequences of similar length that are computed together, because padding costs as much as kept tokens.
_PART = 16


@dataclass(frozen=True)
class GeneratorTraining:
    """Settings of one run; the defaults suit `nano` and procedural clips."""

    steps: Annotated[int, AT_LEAST_1] = 2000
    """Optimiser steps."""
    batch_size: Annotated[int, AT_LEAST_1] = 64
    """Sequences a step, over all processes."""
    muon_learning_rate: Annotated[float, POSITIVE] = 6e-3
    """Peak rate of the matrices inside blocks (Muon, RMS-matched to AdamW)."""
    adam_learning_rate: Annotated[float, POSITIVE] = 3e-3
    """Peak rate of embeddings, norms and head (AdamW)."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.05
    """Of both optimisers."""
    warmup: Annotated[float, SHARE] = 0.03
    """Fraction of the run in which the rates rise; then they fall by a half cosine."""
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    """Gradient clipping."""
    unconditional: Annotated[float, Range(0, 1, open_high=True)] = 0.1
    """Share of the sequences that are shown without their class, for guidance; 0 for none."""
    seed: Annotated[int, SEED] = 0
    """Decides the weights, the order and every draw."""
    save_every: Annotated[int, AT_LEAST_1] = 200
    """Steps between checkpoints."""
    validate_every: Annotated[int, AT_LEAST_1] = 200
    """Steps between measurements on held-out sequences."""

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, step: int) -> float:
        """Learning rate at a step, as a fraction of its maximum."""
        done = (step + 1) / self.steps
        if done < self.warmup:
            return done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / max(1e-9, 1 - self.warmup)))


class GeneratorTrainer:
    """Trains a generator on code sequences.

    Every random number is a function of seed and step, so a resumed run is bitwise equal to an uninterrupted one (on
    the same processor and number of threads). Processes divide each batch and sum their gradients.

    Args:
        config: of the generator.
        training: the run's settings.
        sequences: to learn from.
        folder: run folder; the state goes to ``training_state.pt`` and the weights to ``model/generator.safetensors``.
        device: ``"cpu"`` or ``"cuda"``.
        unit_codes: ``float [V, d]``, the tokenizer's code vectors; see `ClipGenerator.place_codes`.
        processes: of the run.
        resume: continue from the folder's state.

    Attributes:
        model: the generator in training.
        step: steps done.
        seconds: time spent in them.

    Raises:
        FileNotFoundError: ``resume`` without a state.
        ValueError: the sequences belong to another tokenizer, the batch is not divisible by the number of processes, or
            a resumed run has other settings or sequences.

    Warns:
        UserWarning: the run is resumed on another processor or number of threads.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        training: GeneratorTraining,
        sequences: CodeSequences,
        folder: Path,
        device: str = "cpu",
        *,
        unit_codes: Tensor | None = None,
        processes: Processes | None = None,
        resume: bool = False,
    ) -> None:
        given = (sequences.codes.shape[1], sequences.codebook_size, sequences.label_names)
        if given != (config.tokens, config.codebook_size, config.label_names):
            raise ValueError(
                f"Expected sequences of K = {config.tokens}, V = {config.codebook_size} and {len(config.label_names)} "
                f"classes, got {given[0]}, {given[1]} and {len(given[2])}; encode the clips with the same tokenizer."
            )
        self.config, self.training, self.sequences, self.folder = config, training, sequences, Path(folder)
        self.processes = processes or Processes()
        self._share = self.processes.share(training.batch_size)
        self.device = usable_device(device)
        self.machine = describe_machine(self.device)
        self._facts = {"config": config.to_dict(), "training": asdict(training), "sequences": sequences.identity}
        state = read_state(self.folder) if resume else None
        if state is not None:
            check_unchanged(self.folder, *map(_flat, (state["facts"], self._facts)))
            warn_if_other_machine(state["machine"], self.machine)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            model = ClipGenerator(config)
            if unit_codes is not None:
                model.place_codes(unit_codes.cpu())
        self.model = model.to(self.device).train()
        matrices = [value for value in self.model.decoder.layers.parameters() if value.dim() == 2]
        inside = set(map(id, matrices))
        others = [value for value in self.model.parameters() if id(value) not in inside]
        decay = training.weight_decay
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": SinglePrecisionMuon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(others, weight_decay=decay, betas=(0.9, 0.95)),
        }
        self.order = ClipOrder(len(sequences), training.seed)
        self.step, self.seconds = 0, 0.0
        self._interrupt = DeferredInterrupt()
        if state is not None:
            self.model.load_state_dict(state["model"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.step, self.seconds = state["step"], state["seconds"]

    def batch(self, step: int) -> tuple[CodeSequences, Tensor]:
        """This process's sequences of a step, in ascending length, and their labels, some unconditional."""
        size = self.training.batch_size
        rows = torch.tensor(self.order.take(step * size, size))
        generator = torch.Generator().manual_seed(derive_seed("class", self.training.seed, step))
        hidden = torch.rand(size, generator=generator) < self.training.unconditional
        own = self.sequences.n_tokens[rows].argsort(stable=True)[list(self._share)]
        taken = self.sequences.take(rows[own])
        return taken, taken.labels.masked_fill(hidden[own], self.config.no_class)

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns the loss in nats per token and the gradient's norm.

        Raises:
            NonFiniteLossError: loss or gradient is not finite; the weights are unchanged.
        """
        taken, labels = self.batch(self.step)
        counted = self.processes.sum((taken.n_tokens + 1).sum().float().to(self.device))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for rows in torch.arange(len(taken)).split(_PART):
            n_tokens = taken.n_tokens[rows]
            parts = (taken.codes[rows, : int(n_tokens.max())], labels[rows], n_tokens)
            part = self.model.loss(*(value.to(self.device) for value in parts)).sum() / counted
            part.backward()
            loss += part.detach()
        self.processes.sum_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.max_grad_norm)
        found = {"loss": float(self.processes.sum(loss)), "gradient_norm": float(norm)}
        if not all(map(math.isfinite, found.values())):
            raise NonFiniteLossError.of(f"Expected a finite loss and gradient, got {found}", self.folder, self.step)
        factor = self.training.rate(self.step)
        peaks = {"muon": self.training.muon_learning_rate, "adamw": self.training.adam_learning_rate}
        step_optimizers(self.optimizers, {name: peaks[name] * factor for name in peaks})
        self.step += 1
        return found

    def run(
        self,
        on_step: Callable[[int, Mapping[str, float]], None] | None = None,
        validate: Callable[[ClipGenerator, int], None] | None = None,
    ) -> None:
        """Trains to the end and writes checkpoints. Ctrl-C finishes the step and saves; another call continues.

        Args:
            on_step: called after each step.
            validate: called on the main process every ``validate_every`` steps and at the end, in evaluation mode.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after saving.
            NonFiniteLossError: see `train_step` and `write_state`.
        """
        if self.step and self.processes.is_main:
            self.model.save(self.folder / MODEL_FOLDER)  # a kill may have left older weights
        with self._interrupt:
            while self.step < self.training.steps:
                started = time.monotonic()
                found = self.train_step()
                self.seconds += time.monotonic() - started
                if on_step is not None:
                    on_step(self.step, found)
                last = self.step == self.training.steps
                due = last or self.step % self.training.validate_every == 0
                if validate is not None and self.processes.is_main and due:
                    self.model.eval()
                    validate(self.model, self.step)
                    self.model.train()
                stop = not self.processes.all_agree(not self._interrupt.requested)
                if last or stop or self.step % self.training.save_every == 0:
                    self.save()
                if stop and not last:
                    raise KeyboardInterrupt

    def save(self) -> Path:
        """Writes the state, then the weights, each atomically; returns the path of the state."""
        if self.processes.is_main:
            state: dict[str, Any] = {
                "step": self.step,
                "seconds": self.seconds,
                "model": self.model.state_dict(),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "facts": self._facts,
                "machine": self.machine,
            }
            write_state(self.folder, state)
            self.model.save(self.folder / MODEL_FOLDER)
        return self.folder / STATE_FILE


@torch.no_grad()
def held_out_loss(model: ClipGenerator, sequences: CodeSequences, batch_size: int = 64) -> float:
    """Mean loss in nats per token, including [stop], on held-out sequences."""
    total, count = 0.0, 0
    for start in range(0, len(sequences), batch_size):
        some = sequences.take(range(start, min(start + batch_size, len(sequences))))
        parts = (value.to(model.device) for value in (some.codes, some.labels, some.n_tokens))
        total += float(model.loss(*parts).double().sum())
        count += int((some.n_tokens + 1).sum())
    return total / count


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes, settings and sequences of a run in one dictionary, by the names that a user gave them."""
    return {**facts["config"], **facts["training"], "sequences": facts["sequences"]}
