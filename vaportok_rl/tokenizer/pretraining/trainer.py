"""The pretraining loop: resumable to the bit, stopped by a non-finite loss, silent about everything else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.clips.source import ClipSource
from vaportok_rl.tokenizer.checkpoint import save_checkpoint
from vaportok_rl.tokenizer.complexity import calibrate, clip_complexity
from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.model import VaporTok
from vaportok_rl.tokenizer.pretraining.codebook import CodebookCare, spherical_kmeans
from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.objective import Phase, complete_loss
from vaportok_rl.tokenizer.pretraining.optimizers import build_optimizers

STATE_FILE = "training_state.pt"


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last checkpoint is untouched."""


def start_from(model: VaporTok, source: VaporTok) -> None:
    """Copies every weight but the taildrop query module's.

    Raises:
        ValueError: the two differ in geometry; the message names the first weight that does not fit.
    """
    fresh = "taildrop_module."
    given = {name: value for name, value in source.state_dict().items() if not name.startswith(fresh)}
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(fresh)}
    for name in sorted(own.keys() | given.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (own, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Expected a warm start of the preset's geometry, got {name} of shape {shapes[1]} for {shapes[0]}; "
                "pretrain with the preset the checkpoint was made with."
            )
    model.load_state_dict({**model.state_dict(), **given})


class Pretrainer:
    """Trains one tokenizer.

    Every random number comes from torch's global generator, whose state is part of the checkpoint, and the order of
    the clips is a function of the step; a resumed run therefore equals an uninterrupted one.

    Args:
        model_config: geometry and sizes; the complexity tables are calibrated here.
        config: the run's settings.
        source: training clips.
        folder: run folder; checkpoints go to ``folder/training_state.pt`` and weights to ``folder/model``.
        device: where to train.
        warm_start: a tokenizer of the same geometry to start from. Its weights are copied, except the taildrop query
            module's, which starts fresh; its codebook is kept. None starts from nothing.
    """

    def __init__(
        self,
        model_config: VaporTokConfig,
        config: PretrainConfig,
        source: ClipSource,
        folder: Path,
        device: str | torch.device = "cpu",
        warm_start: VaporTok | None = None,
    ) -> None:
        if (source.frames, source.size) != (model_config.frames, model_config.size):
            raise ValueError(
                f"Expected clips of {model_config.frames} frames and {model_config.size} pixels, got {source.frames} "
                f"and {source.size}; open the clips with the tokenizer's geometry."
            )
        self.config = config
        self.source = source
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.order = ClipOrder(len(source), config.seed)
        torch.manual_seed(config.seed)
        calibrated = replace(model_config, complexity=self._calibrate(model_config))
        self.model = VaporTok(calibrated, "bfloat16" if config.bfloat16 else "float32").to(self.device).train()
        self._codebook_given = warm_start is not None
        if warm_start is not None:
            start_from(self.model, warm_start)
        self.optimizers = build_optimizers(self.model, config)
        self.care = CodebookCare(calibrated.codebook_size)
        self.step = 0
        self.seconds = 0.0

    def _calibrate(self, model_config: VaporTokConfig) -> Any:
        count = min(self.config.calibration_clips, len(self.source))
        parts = [
            clip_complexity(self.source.batch(self.order.take(start, min(64, count - start))).clips)
            for start in range(0, count, 64)
        ]
        return calibrate(torch.cat(parts), model_config.complexity)

    def phase(self, step: int) -> Phase:
        """What the schedule asks of a step."""
        return Phase(
            quantized_share=self.config.quantized_share(step),
            random_lengths=step >= self.config.random_lengths_from * self.config.steps,
            sampling_ratio=self.config.sampling_ratio(step),
            uniform_lengths=self.config.uniform_lengths,
            full_lengths=self.config.full_lengths,
        )

    def _clips(self, step: int) -> Tensor:
        size = self.config.batch_size
        return self.source.batch(self.order.take(step * size, size)).clips.to(self.device)

    def train_step(self) -> dict[str, Tensor]:
        """Runs one optimiser step and returns its detached loss terms.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite; the weights were not changed.
        """
        phase = self.phase(self.step)
        before = self.phase(self.step - 1) if self.step else phase
        if phase.quantized_share > 0 and (before.quantized_share == 0 or self.step == 0):
            if not self._codebook_given:
                self._initialize_codebook()
        result = complete_loss(self.model, self._clips(self.step), self.config.weights, phase)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        if not bool(torch.isfinite(result.loss) & torch.isfinite(norm)):
            raise NonFiniteLossError(
                f"Expected a finite loss, got {float(result.terms['loss'])} (gradient norm {float(norm)}) at step "
                f"{self.step}; the last good checkpoint is {self.folder / STATE_FILE}. Lower the learning rates or "
                "turn bfloat16 off, then resume."
            )
        factor = self.config.learning_rate_factor(self.step)
        peaks = {"muon": self.config.muon_learning_rate, "adamw": self.config.adam_learning_rate}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = peaks[name] * factor
            optimizer.step()
        self.step += 1
        terms = dict(result.terms)
        terms["gradient_norm"] = norm
        if result.codes is not None:
            self._care_for_codes(result.codes, result.unit)
            terms["codes_used"] = torch.tensor(self.care.used_share())
        return terms

    @torch.no_grad()
    def _initialize_codebook(self) -> None:
        generator = torch.Generator().manual_seed(self.config.seed)
        units = []
        count = max(1, self.config.codebook_clips // self.config.batch_size)
        for index in range(count):
            with self.model.autocast():
                latents = self.model.encoder_latents(self._clips(self.step + index).float() / 255)
            units.append(self.model.bottleneck.to_unit(latents).flatten(0, 1).cpu())
        unit = torch.cat(units)
        embedding = self.model.bottleneck.regularizer.embedding
        codes = embedding.num_embeddings
        if unit.shape[0] < codes:
            unit = unit.repeat(codes // unit.shape[0] + 1, 1)
        kept = unit[torch.randperm(unit.shape[0], generator=generator)[: 32 * codes]]
        embedding.weight.copy_(spherical_kmeans(kept, codes, 10, generator))

    def _care_for_codes(self, codes: Tensor, unit: Tensor) -> None:
        self.care.record(codes)
        if self.step % self.config.revive_every == 0 and self.step < self.config.decay_from * self.config.steps:
            self.care.revive(self.model.bottleneck.regularizer.embedding, unit, self.optimizers["adamw"])

    def run(
        self,
        on_step: Callable[[int, Mapping[str, Tensor]], None] | None = None,
        validate: Callable[[VaporTok, int], None] | None = None,
    ) -> None:
        """Trains to the end, writing checkpoints on the way.

        Args:
            on_step: called after each step with the step number and its terms.
            validate: called every ``validate_every`` steps and at the end with the model in evaluation mode.
        """
        import time

        while self.step < self.config.steps:
            started = time.monotonic()
            terms = self.train_step()
            self.seconds += time.monotonic() - started
            if on_step is not None:
                on_step(self.step, terms)
            last = self.step == self.config.steps
            if validate is not None and (last or self.step % self.config.validate_every == 0):
                # Validation must not move the random stream, or its frequency would change the weights.
                with torch.random.fork_rng(devices=[]):
                    self.model.eval()
                    validate(self.model, self.step)
                    self.model.train()
            if last or self.step % self.config.save_every == 0:
                self.save()

    def save(self) -> Path:
        """Writes the training state and the weights, atomically; returns the state's path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "codes_counted": self.care.counts,
            "random_state": torch.get_rng_state(),
            "config": asdict(self.config),
            "model_config": self.model.config.to_dict(),
        }
        path = self.folder / STATE_FILE
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            torch.save(state, Path(scratch) / STATE_FILE)
            (Path(scratch) / STATE_FILE).replace(path)
        save_checkpoint(self.model, self.folder / "model")
        return path

    def load(self) -> None:
        """Continues from ``folder/training_state.pt``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it was written with other settings.
        """
        path = self.folder / STATE_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected a checkpoint at {path} to resume from, found none; start the run without --resume."
            )
        state = torch.load(path, weights_only=True, map_location="cpu")
        mine = {"config": asdict(self.config), "model_config": self.model.config.to_dict()}
        for part, wanted in mine.items():
            changed = sorted(key for key in wanted if state[part].get(key) != wanted[key])
            if changed:
                raise ValueError(
                    f"Expected the settings the run in {self.folder} was started with, got other values for "
                    f"{', '.join(changed)}; resume with the original settings or start a new run folder."
                )
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.care.counts.copy_(state["codes_counted"])
        torch.set_rng_state(state["random_state"])
        self.step, self.seconds = state["step"], state["seconds"]
