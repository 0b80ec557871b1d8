"""``vaportok-rl distance``: rFVD of a length policy's reconstructions and gFVD of a generator."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vaportok_rl.cli.progress import progress_bar
from vaportok_rl.experiments.console import tell_written
from vaportok_rl.experiments.run_folder import create_run_folder, preparing, write_config, write_json
from vaportok_rl.generation.sampling import SamplingOptions
from vaportok_rl.runtime.declared import AT_LEAST_1, SEED, check_fields
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer import PrecisionChoice
from vaportok_rl.tokenizer.perceptual import PerceptualDistance, PerceptualNetwork


@dataclass(frozen=True)
class Distance:
    """Measure the distance of reconstructions (rFVD) and generated clips (gFVD) to held-out clips.

    Prints Fréchet distance and maximum mean discrepancy of features, with the number of clips and the feature network's
    hash, and writes them with MSE, PSNR, SSIM, LPIPS, prior accuracy and lengths to a new folder. On several processes,
    which divide the clips: `torchrun --nproc-per-node N -m vaportok_rl distance …`.
    """

    generator: str | None = None
    """Run folder of `vaportok-rl generator train`, for gFVD."""
    tokenizer: str = "nano"
    """Tokenizer: a shipped name, a checkpoint folder, or a hub id."""
    clips: tuple[str, ...] = ("procedural",)
    """Clips whose held-out part is the reference, as `--clips` of `pretrain` takes them."""
    lengths: str = "argmax"
    """Policy that chooses the lengths of the reconstructions: anything that `rollout --policy` takes."""
    network: str = "stand-in"
    """Feature network: `stand-in` (not comparable with published values), `i3d:FILE`, `videomae:FILE`,
    `vjepa:FILE` or `torchscript:FILE`."""
    count: Annotated[int, AT_LEAST_1] = 512
    """Clips in each set."""
    same_lengths: bool = False
    """Give each generated clip the length that the policy chose for the held-out clip of its class, instead of the
    generator's own: one generator then serves every policy."""
    lpips: PerceptualNetwork = "alex"
    """Backbone of LPIPS, which is measured if its weights are at hand: `vgg`, `alex` or `squeeze`."""
    few: bool = False
    """Give a Fréchet distance even if there are no more clips than features."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)
    seed: Annotated[int, SEED] = 0
    """Of the clips and of the generator's draws."""
    device: str = "cpu"
    """torch device."""
    precision: PrecisionChoice = "auto"
    """Of the tokenizer: `float32`, `bfloat16`, or `auto`."""
    trust_archives: bool = False
    """Read an agent from Stable-Baselines3's archive (.zip) too, which runs whatever code it holds."""
    out: Path | None = None
    """New folder; `runs/<time>-distance` if not given."""

    def run(self, console: Console) -> None:
        """Runs the command."""
        from vaportok_rl.agents import build_length_policy
        from vaportok_rl.envs import TaildropProcess
        from vaportok_rl.evaluation.feature_networks import open_feature_network
        from vaportok_rl.experiments.generation.distances import measure_generation
        from vaportok_rl.experiments.generation.writing import check_tokenizer
        from vaportok_rl.generation.model import ClipGenerator

        check_fields(self)
        if self.generator is None and (self.same_lengths or self.sampling != SamplingOptions()):
            raise ValueError(
                "Expected --generator with --same-lengths or sampling options, got none; name a run folder of "
                "`vaportok-rl generator train`, or leave these options out."
            )
        processes = Processes.start(self.device)
        network = open_feature_network(self.network, self.device)
        process = TaildropProcess(
            tokenizer=self.tokenizer,
            clips=self.clips[0] if len(self.clips) == 1 else self.clips,
            split="test",
            device=self.device,
            precision=self.precision,
        )
        model = None
        if self.generator is not None:
            model = ClipGenerator.load(self.generator, self.device)
            check_tokenizer(model, self.tokenizer, process.engine.world)
        policy = build_length_policy(self.lengths, process, trust_archives=self.trust_archives)
        lpips = self._lpips(console, process.engine.config.size)
        folder = create_run_folder(Path("runs"), "distance", self.out) if processes.is_main else Path()
        unused = preparing(folder) if processes.is_main else contextlib.nullcontext()
        with unused, progress_bar(console) as progress:
            total = -(-self.count // processes.count) * (1 if model is None else 2)
            task = progress.add_task("measuring clips", total=total, live="")
            figures = measure_generation(
                process,
                policy,
                network,
                self.count,
                self.seed,
                model=model,
                options=self.sampling,
                same_lengths=self.same_lengths,
                lpips=lpips,
                allow_few=self.few,
                processes=processes,
                on_clips=partial(progress.advance, task),
            )
        if not processes.is_main:
            return
        console.print(figures.markdown(), highlight=False, soft_wrap=True)
        written = [
            write_config(folder, dataclasses.replace(self, out=None)),
            write_json(folder / "distances.json", figures.to_dict()),
        ]
        tell_written(console, folder, written)

    def _lpips(self, console: Console, size: int) -> PerceptualDistance | None:
        """LPIPS of frames of this size; None, and a line that says why, where it cannot be measured."""
        import torch

        try:
            found = PerceptualDistance(self.lpips).to(self.device)
            found(*[torch.zeros(1, 3, 1, size, size, device=self.device)] * 2)
        except (FileNotFoundError, ValueError) as error:
            console.print(f"no LPIPS: {error}", style="dim", highlight=False, soft_wrap=True)
            return None
        return found
