"""No taildrop, naive and probabilistic taildrop at one training budget (supplement C.3, C.4, Figure 5).

``python -m vaportok_rl.experiments.evidence.taildrop OUT`` trains a tokenizer under each strategy and a generator on
its codes. It compares gFVD / rFVD, the source's measure of errors that autoregression accumulates, and the distance of
generated to reconstructed clips. The same command continues after an interruption; a second process with the same OUT
takes worlds that the first has not begun.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from vaportok_rl.agents import build_length_policy
from vaportok_rl.clips import open_clips
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation import clip_batches, rate_distortion
from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance, resampled_frechet
from vaportok_rl.evaluation.feature_networks import STAND_IN, FeatureNetwork, open_feature_network
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.evidence.section import picture, verdict, write_section
from vaportok_rl.experiments.generation.distances import measure_generation
from vaportok_rl.experiments.generation.sequences import TRAIN_FILE, encode_sequences, generator_config
from vaportok_rl.experiments.run_folder import write_json
from vaportok_rl.generation import (
    ClipGenerator,
    CodeSequences,
    GeneratorSizes,
    GeneratorTrainer,
    GeneratorTraining,
)
from vaportok_rl.runtime.held_folders import hold_run_folder, release_run_folder
from vaportok_rl.runtime.machine import processor_name
from vaportok_rl.runtime.markdown import markdown_table
from vaportok_rl.tokenizer import PRESETS, VaporTok
from vaportok_rl.tokenizer.config import Strategy
from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.recipe_files import read_recipe
from vaportok_rl.tokenizer.pretraining.resuming import MODEL_FOLDER, STATE_FILE

World = Literal["none", "naive", "argmax", "sample", "pre-sample"]
COLOURS = dict(zip(get_args(World), ("tab:purple", "tab:gray", "tab:red", "tab:blue", "tab:green"), strict=True))
# The source's gFVD / rFVD with 1,024 and with 512 tokens; those of the other strategies are not in the supplement.
SOURCE_RATIOS = {"none": "2.85, 1.62", "naive": "1.26, 1.14"}
NAME = "taildrop"
_METRICS = ("tokens", "mse", "psnr", "accuracy", "rfvd", "gfvd", "autoregression", "ratio", "generated_tokens", "hours")
_PATH = 8

MEASURED = {"rFVD": "rfvd", "gFVD": "gfvd", "generated to reconstructed": "autoregression"}
"""Fréchet distances. The third is what autoregression alone adds; gFVD / rFVD hides it if the tokenizer errs more."""
DISTANCES = (*MEASURED, "gFVD / rFVD")
# Of two worlds the first should have the greater value: the source's claims, and their like on our third distance.
CLAIMS = (
    ("gFVD / rFVD", "none", "naive"),
    ("gFVD / rFVD", "argmax", "sample"),
    ("gFVD / rFVD", "sample", "pre-sample"),
    ("generated to reconstructed", "none", "naive"),
    ("generated to reconstructed", "argmax", "sample"),
    ("generated to reconstructed", "sample", "pre-sample"),
    ("rFVD", "naive", "none"),
    ("rFVD", "naive", "sample"),
)


def _budget() -> PretrainConfig:
    """The recipe of `nano`, shorter and without its mixture of lengths."""
    recipe = read_recipe("nano")
    own = {entry.name: recipe[entry.name] for entry in fields(PretrainConfig) if entry.name in recipe}
    weights = LossWeights(**own.pop("weights"))
    return PretrainConfig(**{**own, "steps": 700, "length_mixture": (1.0, 0.0, 0.0)}, weights=weights)


@dataclass(frozen=True)
class Taildrop:
    """Settings of the study; the defaults take about an hour and a half on two cores."""

    preset: str = "nano"
    """Geometry of the tokenizers."""
    clips: str = "procedural"
    """Labelled clips; split `train` trains, split `test` is measured."""
    worlds: tuple[World, ...] = get_args(World)
    """Strategies; `none` keeps all tokens in training."""
    seeds: tuple[int, ...] = (0,)
    """One tokenizer and one generator of each strategy a seed."""
    count: int = 2048
    """Held-out clips, and as many generated ones."""
    resamples: int = 500
    """Of the held-out clips, for the intervals."""
    network: str = STAND_IN
    """Feature network, as `vaportok-rl distance` takes it."""
    sequences: int = 16_384
    """Clips encoded to train each generator."""
    workers: int = 1
    """Processes that draw clips for pretraining; 0 draws them between steps."""
    device: str = "cpu"
    """torch device."""
    pretraining: PretrainConfig = field(default_factory=_budget)
    """Budget of each tokenizer."""
    sizes: GeneratorSizes = field(default_factory=GeneratorSizes)
    """Of each generator."""
    generator: GeneratorTraining = field(default_factory=lambda: GeneratorTraining(steps=600))
    """Budget of each generator."""

    def __post_init__(self) -> None:
        if not self.worlds or not self.seeds:
            raise ValueError(f"Expected a world and a seed at least, got {self.worlds} and {self.seeds}; name them.")


def world_folder(out: Path, world: str, seed: int) -> Path:
    """Run folder of a world: the tokenizer is in ``model``, the generator in ``generator``."""
    return out / "worlds" / f"{world}-{seed}"


def _watched(console: Console, title: str, trainer: Pretrainer | GeneratorTrainer, total: int) -> None:
    with Progress(console=console) as progress:
        task = progress.add_task(title, total=total, completed=trainer.step)
        trainer.run(lambda step, _: progress.update(task, completed=step))


def train_world(settings: Taildrop, world: World, seed: int, folder: Path, console: Console) -> float:
    """Trains a tokenizer and its generator, as far as they are not trained yet; returns the hours it took."""
    strategy: Strategy = "naive" if world == "none" else world
    preset = PRESETS[settings.preset]
    budget = replace(settings.pretraining, seed=seed)
    if world == "none":
        budget = replace(budget, length_mixture=(0.0, 0.0, 1.0))
    pretrainer = Pretrainer(
        replace(preset, taildrop=replace(preset.taildrop, strategy=strategy)),
        budget,
        open_clips(settings.clips, frames=preset.frames, size=preset.size),
        folder,
        settings.device,
        workers=settings.workers,
        resume=(folder / STATE_FILE).is_file(),
    )
    _watched(console, f"{world}, seed {seed}: tokenizer", pretrainer, budget.steps)
    tokenizer, own, lengths = folder / MODEL_FOLDER, folder / "generator", "naive" if strategy == "naive" else "argmax"
    process = TaildropProcess(
        tokenizer=str(tokenizer), clips=settings.clips, split="train", device=settings.device, path_length=_PATH
    )
    own.mkdir(exist_ok=True)
    sequences = CodeSequences.load(own / TRAIN_FILE) if (own / TRAIN_FILE).is_file() else None
    if sequences is None or len(sequences) != settings.sequences:
        sequences = encode_sequences(process, build_length_policy(lengths, process), settings.sequences, seed)
        sequences.save(own / TRAIN_FILE)
    training = replace(settings.generator, seed=seed)
    trainer = GeneratorTrainer(
        generator_config(settings.sizes, process, sequences, lengths, training.unconditional),
        training,
        sequences,
        own,
        settings.device,
        unit_codes=process.engine.world.bottleneck.regularizer.unit_codes(),
        resume=(own / STATE_FILE).is_file(),
    )
    _watched(console, f"{world}, seed {seed}: generator", trainer, training.steps)
    return (pretrainer.seconds + trainer.seconds) / 3600


def measure_world(settings: Taildrop, folder: Path, network: FeatureNetwork, seed: int) -> dict[str, Any]:
    """Metrics of a world, its PSNR by length, and logarithms of resampled distances; read if already measured.

    Returns:
        The metrics by name, ``lengths`` and ``psnr_by_length``, and ``logs``: logarithms of the distances `MEASURED` of
        each resample.
    """
    tokenizer, file = str(folder / MODEL_FOLDER), folder / "measured.json"
    model = ClipGenerator.load(folder / "generator", settings.device)
    depends_on = [
        list(MEASURED),
        weights_digest(tokenizer),
        model.fingerprint(),
        network.sha256,
        settings.count,
        settings.resamples,
    ]
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text())
        if known["depends_on"] == depends_on:
            return known
    process = TaildropProcess(
        tokenizer=tokenizer, clips=settings.clips, split="test", device=settings.device, path_length=_PATH
    )
    features: dict[str, list[Tensor]] = defaultdict(list)
    found = measure_generation(
        process,
        build_length_policy("argmax", process),
        network,
        settings.count,
        seed,
        model=model,
        on_features=lambda name, part: features[name].append(part),
    )
    assert found.gfvd is not None
    real, again, generated = (torch.cat(features[name]) for name in ("real", "reconstructed", "generated"))
    world = VaporTok.from_pretrained(tokenizer, device=settings.device)
    with torch.no_grad():
        curve = rate_distortion(world, clip_batches(process.source, min(settings.count, 512)))
    resampled = (
        resampled_frechet(reference, others, settings.resamples, seed)
        for reference, others in ((real, (again, generated)), (again, (generated,)))
    )
    measured = {
        "depends_on": depends_on,
        "tokens": found.tokens,
        "mse": found.mse,
        "psnr": found.psnr,
        "accuracy": found.accuracy,
        "rfvd": found.rfvd.frechet,
        "gfvd": found.gfvd.frechet,
        "autoregression": frechet_distance(FeatureStatistics.of(again), FeatureStatistics.of(generated)),
        "ratio": found.gfvd.frechet / found.rfvd.frechet,
        "generated_tokens": found.generated_tokens,
        "lengths": curve.lengths,
        "psnr_by_length": curve.psnr,
        "note": found.gfvd.note(),
        "logs": np.log(np.concatenate(tuple(resampled), 1)).tolist(),
    }
    write_json(file, measured)
    return measured


@dataclass(frozen=True)
class Logarithms:
    """Logarithms of a world's `DISTANCES`.

    Attributes:
        value: mean over seeds, ``[4]``.
        draws: the same of bootstrap resamples over seeds and clips, ``[R, 4]``.
    """

    value: NDArray[np.float64]
    draws: NDArray[np.float64]

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, Any]], seed: int = 0) -> Logarithms:
        """From the runs of `measure_world`, one a seed."""
        measured = np.log([[run[name] for name in MEASURED.values()] for run in runs])
        both = measured, np.array([run["logs"] for run in runs])
        values, draws = (np.append(logs, logs[..., 1:2] - logs[..., :1], -1) for logs in both)
        # Distances of resamples are biased upwards; only their spread is used.
        draws += (values - draws.mean(1))[:, None]
        resamples = draws.shape[1]
        chosen = np.random.default_rng(seed).integers(0, len(runs), (resamples, len(runs)))
        return cls(values.mean(0), draws[chosen, np.arange(resamples)[:, None]].mean(1))

    def factor(self, distance: str, other: Logarithms | None = None) -> tuple[float, float, float]:
        """A distance, or its quotient by another world's, with its 95 % interval.

        The interval is ±1.96 standard errors of the logarithm.
        """
        place = DISTANCES.index(distance)
        value, draws = self.value[place], self.draws[:, place]
        if other is not None:
            value, draws = value - other.value[place], draws - other.draws[:, place]
        error = 1.96 * draws.std(ddof=1)
        middle, low, high = np.exp([value, value - error, value + error]).tolist()
        return middle, low, high


def claims_table(logs: Mapping[str, Logarithms]) -> str:
    """Claims on pairs of worlds, and whether they hold here."""
    rows = []
    for distance, first, second in CLAIMS:
        if first in logs and second in logs:
            value, low, high = logs[first].factor(distance, logs[second])
            rows.append(
                (f"{distance}: {first} > {second}", verdict(low, high, 1), f"{value:.3f} [{low:.3f}, {high:.3f}]")
            )
    return markdown_table(("claim", "here", "quotient"), rows, names=2)


def worlds_table(runs: Mapping[str, Sequence[Mapping[str, Any]]], logs: Mapping[str, Logarithms]) -> str:
    """One row per world: means over seeds."""
    rows = []
    for world, own in runs.items():
        tokens, psnr = (np.mean([run[name] for run in own]) for name in ("tokens", "psnr"))
        cells = []
        for distance in DISTANCES:
            value, low, high = logs[world].factor(distance)
            form = ".3g" if distance in MEASURED else ".3f"  # the quotients are close to 1
            cells.append(f"{value:{form}} [{low:{form}}, {high:{form}}]")
        rows.append((world, SOURCE_RATIOS.get(world, "–"), f"{tokens:.1f}", f"{psnr:.2f}", *cells))
    headings = ("taildrop", "source's gFVD / rFVD", "tokens", "PSNR (dB)", *DISTANCES)
    return markdown_table(headings, rows)


def figure(runs: Mapping[str, Sequence[Mapping[str, Any]]], logs: Mapping[str, Logarithms]) -> Figure:
    """Distances of each world, their quotient, and PSNR against tokens with each world's own length marked."""
    drawn = Figure(figsize=(10, 7), layout="constrained")
    (levels, added), (quotients, curves) = drawn.subplots(2, 2)
    names = list(runs)
    panels = {
        levels: ("Distance to held-out clips", "Fréchet distance of features", DISTANCES[:2]),
        added: ("Distance of generated to reconstructed clips", "Fréchet distance of features", DISTANCES[2:3]),
        quotients: ("The source's measure of autoregression's error", "gFVD / rFVD", DISTANCES[3:]),
    }
    for axis, (title, unit, shown) in panels.items():
        for number, name in enumerate(shown):
            place = np.arange(len(names)) + 0.12 * (2 * number + 1 - len(shown))
            middle, low, high = np.array([logs[world].factor(name) for world in names]).T
            axis.errorbar(place, middle, [middle - low, high - middle], fmt="os"[number], capsize=4, label=name)
        axis.set_title(f"{title} (95 % intervals)", fontsize=10)
        axis.set_ylabel(unit)
        axis.set_xticks(range(len(names)), names)
    levels.legend(frameon=False, fontsize=8)
    for world, own in runs.items():
        quality = np.mean([run["psnr_by_length"] for run in own], 0)
        curves.plot(own[0]["lengths"], quality, color=COLOURS[world], lw=1.4, label=world)
        tokens, psnr = (np.mean([run[name] for run in own]) for name in ("tokens", "psnr"))
        curves.plot(tokens, psnr, "o", color=COLOURS[world], ms=7)
    curves.set_xscale("log", base=2)
    curves.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:g}")
    curves.set_title("Quality against tokens (dots: at the policy's lengths)", fontsize=10)
    curves.set_xlabel("tokens kept")
    curves.set_ylabel("PSNR (dB)")
    curves.legend(frameon=False, fontsize=8)
    return drawn


def report(
    settings: Taildrop, runs: Mapping[str, Sequence[Mapping[str, Any]]], logs: Mapping[str, Logarithms]
) -> list[str]:
    """The section of docs/results.md."""
    hours = sum(run["hours"] for own in runs.values() for run in own)
    over = "held-out clips" if len(settings.seeds) == 1 else "seeds and held-out clips"
    return [
        worlds_table(runs, logs),
        f"In brackets: 95 % intervals, ±1.96 standard errors of the logarithm, by bootstrap over {over}.",
        claims_table(logs),
        "The claims on *generated to reconstructed* are ours, the others the source's. A claim holds if the interval "
        "before rounding lies above 1; it is undecided if it contains 1.",
        picture(NAME, "Fréchet distances, their ratio, and PSNR against tokens"),
        f"Each tokenizer (`{settings.preset}`) from nothing, {settings.pretraining.steps} steps of "
        f"{settings.pretraining.batch_size} clips; each generator {settings.generator.steps} steps of "
        f"{settings.generator.batch_size} sequences; seeds {', '.join(map(str, settings.seeds))}; {hours:.1f} h of "
        f"training on {processor_name()}. {next(iter(runs.values()))[0]['note']}",
    ]


def main(out: tyro.conf.Positional[Path], settings: Annotated[Taildrop, tyro.conf.arg(name="")]) -> None:
    """Train a world under each taildrop strategy at one budget, and compare gFVD / rFVD.

    Args:
        out: folder of the worlds, the table, the CSV and the picture; worlds that are there are continued.
        settings: the study.
    """
    run(out, settings, plain_console())


def run(out: Path, settings: Taildrop, console: Console) -> None:
    """See `main`."""
    network = open_feature_network(settings.network, settings.device)
    runs: dict[str, list[dict[str, Any]]] = {world: [] for world in settings.worlds}
    busy = []
    for seed in settings.seeds:
        for world in settings.worlds:
            folder = world_folder(out, world, seed)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                hold_run_folder(folder)
            except FileExistsError:
                busy.append(folder.name)
                continue
            hours = train_world(settings, world, seed, folder, console)
            runs[world].append({**measure_world(settings, folder, network, seed), "seed": seed, "hours": hours})
            release_run_folder(folder)
    if busy:
        console.print(f"another process works on {', '.join(busy)}; run the command again when it has ended")
        return
    rows = [
        {"world": world, "seed": run["seed"]} | {name: run[name] for name in _METRICS}
        for world in runs
        for run in runs[world]
    ]
    logs = {world: Logarithms.of(own) for world, own in runs.items()}
    write_section(out, NAME, report(settings, runs, logs), rows, figure(runs, logs), console)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.evidence.taildrop")
