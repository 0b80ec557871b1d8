"""Taildrop strategies side by side: the same tokenizer trained under each, at one budget.

``python -m vaportok_rl.experiments.strategies`` trains (resuming what it finds), measures on held-out clips and writes
the table and the picture of ``docs/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, get_args

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.evaluation import RateDistortion, rate_distortion
from vaportok_rl.evaluation.reconstruction import mean_squared_error, psnr
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.reports.plots import save_figure
from vaportok_rl.runtime.markdown import markdown_table
from vaportok_rl.tokenizer import PRESETS, VaporTok, load_checkpoint
from vaportok_rl.tokenizer.config import Strategy
from vaportok_rl.tokenizer.error_threshold import lengths_under_error
from vaportok_rl.tokenizer.lengths import inference_lengths
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.resuming import STATE_FILE
from vaportok_rl.tokenizer.prior import cumulative_hits, top_k_accuracy

TABLE_FILE, FIGURE_FILE = "taildrop-strategies.md", "taildrop-strategies.png"
COLOURS = {"naive": "tab:gray", "argmax": "tab:red", "sample": "tab:blue", "pre-sample": "tab:green"}


@dataclass(frozen=True)
class Kept:
    """Metrics of one rule for the length at inference, means over clips.

    Attributes:
        rule: how the length is chosen.
        tokens: tokens kept.
        mse: mean squared error.
        psnr: decibels.
        prior_top5: accuracy of the prior on the kept tokens, in [0, 1].
    """

    rule: str
    tokens: float
    mse: float
    psnr: float
    prior_top5: float


@torch.no_grad()
def measure_kept(world: VaporTok, clips: Tensor, rule: str, choose: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Kept:
    """Measures a rule.

    Args:
        world: the tokenizer.
        clips: ``uint8 [B, C, T, H, W]``.
        rule: its name.
        choose: clips, latents ``[B, K, D]`` and codes ``[B, K]`` to lengths ``int64 [B]``.
    """
    parts: list[Tensor] = []
    for some in clips.split(64):
        encoded = world.encode(some)
        lengths = choose(some, encoded.latents, encoded.codes)
        mse = mean_squared_error(world.decode(encoded.codes, lengths), some)
        hits = cumulative_hits(world.prior_logits(encoded.codes), encoded.codes)
        parts.append(torch.stack([lengths.float(), mse, psnr(mse), top_k_accuracy(hits, lengths)]))
    tokens, mse, quality, accuracy = torch.cat(parts, 1).mean(1).tolist()
    return Kept(rule, tokens, mse, quality, accuracy)


@dataclass(frozen=True)
class Measured:
    """One trained strategy on held-out clips: at every length, and at the lengths it chooses itself."""

    curve: RateDistortion
    kept: Kept


def measure_strategy(world: VaporTok, clips: Tensor) -> Measured:
    """Measures a tokenizer under the inference rule of its own strategy."""
    strategy: Strategy = world.config.taildrop.strategy
    rule = "all K tokens" if strategy == "naive" else "argmax of P"
    kept = measure_kept(
        world,
        clips,
        rule,
        lambda some, latents, codes: inference_lengths(world.taildrop(latents).logits, strategy),
    )
    return Measured(rate_distortion(world, clips.split(64), range(1, world.config.tokens + 1)), kept)


def table(measured: Mapping[str, Measured], by_threshold: Sequence[Kept]) -> str:
    """The Markdown table: a row a strategy, and below it ``naive`` under an error threshold."""
    tokens = next(iter(measured.values())).curve.lengths[-1]
    shown = sorted({min(4, tokens), min(16, tokens), tokens})
    headings = ("strategy", "length at inference", "tokens", "PSNR (dB)", "MSE", "prior top-5", "codes in use")
    rows = [
        (
            *(name, *_cells(entry.kept), f"{100 * entry.curve.codes_used:.0f} %"),
            *(f"{entry.curve.psnr[n - 1]:.2f}" for n in shown),
        )
        for name, entry in measured.items()
    ]
    rows += [("naive", *_cells(kept), *[""] * (1 + len(shown))) for kept in by_threshold]
    return markdown_table((*headings, *(f"PSNR at n = {n}" for n in shown)), rows, names=2)


def reading(measured: Mapping[str, Measured]) -> str:
    """The table in a sentence: which strategy puts the most content first, and what that costs at full length."""
    curves = {name: entry.curve.psnr for name, entry in measured.items()}
    tokens = len(next(iter(curves.values())))
    few = min(4, tokens)
    first = max(curves, key=lambda name: curves[name][few - 1])
    full = max(curves, key=lambda name: curves[name][-1])
    start, end, best = curves[first][few - 1], curves[first][-1], curves[full][-1]
    return (
        f"Of the four, `{first}` has the most content in its first {few} tokens ({start:.2f} dB); with all {tokens} "
        f"tokens `{full}` is best ({best:.2f} dB), and `{first}` is at {end:.2f} dB."
    )


def _cells(kept: Kept) -> tuple[str, ...]:
    quality = (f"{kept.psnr:.2f}", f"{kept.mse:.5f}", f"{100 * kept.prior_top5:.1f} %")
    return kept.rule, f"{kept.tokens:.1f}", *quality


def figure(measured: Mapping[str, Measured]) -> Figure:
    """PSNR against length for each strategy, with the length it chooses itself marked."""
    drawn = Figure(figsize=(5.6, 4))
    axis = drawn.subplots()
    for name, entry in measured.items():
        axis.plot(entry.curve.lengths, entry.curve.psnr, color=COLOURS[name], lw=1.4, label=name)
        axis.plot(entry.kept.tokens, entry.kept.psnr, "o", color=COLOURS[name], ms=7)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("tokens kept (points: mean at the strategy's own lengths)")
    axis.set_ylabel("PSNR (dB)")
    axis.legend(frameon=False, fontsize=8)
    drawn.tight_layout()
    return drawn


@dataclass(frozen=True)
class Strategies:
    """Train the same tokenizer under each taildrop strategy at one budget and compare."""

    preset: str = "nano"
    """Geometry."""
    clips: str = "procedural"
    """Clips to train on (split train) and to measure on (split test)."""
    count: int = 512
    """Held-out clips."""
    out: Path = Path("runs/strategies")
    """Training runs, one folder a strategy; a finished or interrupted one is continued."""
    docs: Path = Path("docs")
    """Where the table and the picture go."""
    config: PretrainConfig = field(default_factory=lambda: PretrainConfig(steps=500, length_mixture=(1, 0, 0)))
    """The budget. Pure strategies: no share of uniform or full lengths."""

    def run(self, console: Console) -> None:
        """Runs the comparison."""
        source, held_out = (self._open(split) for split in ("train", "test"))
        clips = held_out.batch(range(min(self.count, len(held_out)))).clips
        measured: dict[str, Measured] = {}
        worlds: dict[str, VaporTok] = {}
        for strategy in get_args(Strategy):
            worlds[strategy] = self._train(strategy, source, console)
            measured[strategy] = measure_strategy(worlds[strategy], clips)
        limits = (measured["sample"].kept.mse, 0.5 * measured["sample"].kept.mse)
        by_threshold = [
            measure_kept(
                worlds["naive"],
                clips,
                f"smallest n with MSE ≤ {limit:.4f}, {search} search",
                lambda some, latents, codes, limit=limit, search=search: lengths_under_error(  # type: ignore[misc]
                    worlds["naive"], some, codes, limit, search
                ),
            )
            for limit in limits
            for search in ("linear", "binary")
        ]
        text = table(measured, by_threshold)
        self.docs.mkdir(parents=True, exist_ok=True)
        paths = (self.docs / TABLE_FILE, self.docs / "images" / FIGURE_FILE)
        paths[1].parent.mkdir(exist_ok=True)
        save_figure(figure(measured), paths[1])
        paths[0].write_text(self._page(text, measured, source, held_out, len(clips)))
        console.print(text, highlight=False)
        console.print("written: " + ", ".join(map(str, paths)), soft_wrap=True, highlight=False)

    def _open(self, split: str) -> ClipSource:
        geometry = PRESETS[self.preset]
        return open_clips(self.clips, split=split, frames=geometry.frames, size=geometry.size)

    def _train(self, strategy: Strategy, source: ClipSource, console: Console) -> VaporTok:
        preset = PRESETS[self.preset]
        geometry = replace(preset, taildrop=replace(preset.taildrop, strategy=strategy))
        folder = self.out / strategy
        resume = (folder / STATE_FILE).is_file()
        trainer = Pretrainer(geometry, self.config, source, folder, resume=resume)
        with Progress(console=console) as progress:
            task = progress.add_task(strategy, total=self.config.steps, completed=trainer.step)
            trainer.run(lambda step, terms: progress.update(task, completed=step))
        return load_checkpoint(folder / "model")

    def _page(
        self, text: str, measured: Mapping[str, Measured], source: ClipSource, held_out: ClipSource, count: int
    ) -> str:
        config = self.config
        return (
            "# Taildrop strategies at one training budget\n\n"
            "Written by `python -m vaportok_rl.experiments.strategies`. The same tokenizer "
            f"(`{self.preset}`, from scratch, {config.steps} steps of {config.batch_size} clips, seed {config.seed}) "
            "is trained under each strategy of the supplement's section C.4; nothing but the lengths seen in training "
            f"differs. Trained on {source.describe()}; measured on the first {count} of {held_out.describe()}, means "
            "over clips. The first columns are at the length the strategy itself chooses at inference; the PSNR "
            "at fixed n shows which strategy puts the most important content first, and what that costs at full "
            "length.\n\n"
            f"{reading(measured)}\n\n{text}\n\n![PSNR against tokens kept](images/{FIGURE_FILE})\n"
        )


def main(settings: Annotated[Strategies, tyro.conf.arg(name="")]) -> None:
    """Train the same tokenizer under each taildrop strategy at one budget and compare.

    Args:
        settings: the comparison.
    """
    settings.run(plain_console())


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.strategies")
