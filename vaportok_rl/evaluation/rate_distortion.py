"""Quality against length: PSNR, explained variance and prior accuracy at a set of lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.clips import ClipSource
from vaportok_rl.evaluation.intervals import bootstrap_interval
from vaportok_rl.evaluation.ranks import spearman
from vaportok_rl.evaluation.reconstruction import explained_variance, mean_squared_error, psnr
from vaportok_rl.runtime.markdown import markdown_table
from vaportok_rl.tokenizer import VaporTok, clip_complexity
from vaportok_rl.tokenizer.prior import cumulative_hits, top_k_accuracy


@dataclass(frozen=True)
class RateDistortion:
    """A tokenizer's reconstruction quality on a set of clips at several lengths.

    Attributes:
        lengths: the N lengths.
        psnr: mean over clips, decibels, ``[N]``.
        explained_variance: median over clips, ``[N]``.
        mse: mean over clips, ``[N]``.
        prior_top5: mean over clips, in [0, 1], ``[N]``.
        codes_used: share of the codebook in use.
        clips: number of clips.
        rises: change of PSNR from each length to the next: mean over clips and its standard error (NaN for one clip),
            decibels, ``[N - 1, 2]``.
        by_clip: PSNR, explained variance and prior top-5 of each clip, ``[N, clips]`` each; empty where not known.
    """

    lengths: tuple[int, ...]
    psnr: tuple[float, ...]
    explained_variance: tuple[float, ...]
    mse: tuple[float, ...]
    prior_top5: tuple[float, ...]
    codes_used: float
    clips: int
    rises: tuple[tuple[float, float], ...] = ()
    by_clip: tuple[Tensor, ...] = ()

    def table(self) -> list[tuple[str, ...]]:
        """Headings and rows, with 95 % bootstrap intervals over clips where they are known one by one."""
        metrics: tuple[tuple[Sequence[float], Callable[..., Any], str, int, str], ...] = (
            (self.psnr, np.mean, "{:.2f}", 1, ""),
            (self.explained_variance, np.median, "{:.3f}", 1, ""),
            (self.prior_top5, np.mean, "{:.1f}", 100, " %"),
        )
        columns = []
        for place, (values, statistic, style, factor, unit) in enumerate(metrics):
            cells = [style.format(factor * value) + unit for value in values]
            for row, clips in enumerate(self.by_clip[place] if self.by_clip and self.clips > 1 else ()):
                low, high = (style.format(factor * end) for end in bootstrap_interval(statistic, clips))
                cells[row] += f" [{low}, {high}]"
            columns.append(cells)
        headings = ("tokens", "PSNR (dB)", "explained variance (median)", "prior top-5")
        return [headings, *zip(map(str, self.lengths), *columns, strict=True)]

    def markdown(self) -> str:
        """The table in Markdown."""
        headings, *rows = self.table()
        return markdown_table(headings, rows, names=0)

    def monotony(self) -> str:
        """A sentence on where PSNR rises and falls from row to row, with standard errors."""
        falls = [
            f"n = {n} ({change:.4f} ± {error:.4f} dB)"
            for n, (change, error) in zip(self.lengths[1:], self.rises, strict=True)
            if not change > 0
        ]
        rises = f"PSNR rises with each of the {len(self.rises)} steps"
        return f"{rises} but those to {', '.join(falls)}; ± one standard error." if falls else f"{rises}."


def default_lengths(tokens: int) -> tuple[int, ...]:
    """Powers of two up to K, three quarters of K, and K."""
    powers = [2**power for power in range(tokens.bit_length()) if 2**power < tokens]
    return tuple(sorted({*powers, max(1, tokens * 3 // 4), tokens}))


def clip_batches(source: ClipSource, count: int | None = None, batch_size: int = 64) -> Iterator[Tensor]:
    """The first clips of a source, batch by batch.

    Args:
        source: the clips.
        count: maximum number of clips; all by default.
        batch_size: clips per batch.

    Yields:
        ``uint8 [B, C, T, H, W]``.
    """
    total = len(source) if count is None else min(count, len(source))
    for start in range(0, total, batch_size):
        yield source.batch(range(start, min(total, start + batch_size))).clips


def rate_distortion(world: VaporTok, batches: Iterable[Tensor], lengths: Sequence[int] | None = None) -> RateDistortion:
    """Measures a tokenizer.

    Args:
        world: the tokenizer in evaluation mode.
        batches: ``uint8 [B, C, T, H, W]`` each, at least one; see `clip_batches`.
        lengths: lengths in 1 … K; `default_lengths` if not given.
    """
    lengths = tuple(lengths or default_lengths(world.config.tokens))
    errors: list[Tensor] = []
    variances: list[Tensor] = []
    accuracies: list[Tensor] = []
    used = torch.zeros(world.config.codebook_size, dtype=torch.bool)
    for batch in batches:
        clips = batch.to(world.device)
        codes = world.encode(clips).codes
        used[codes.flatten().cpu()] = True
        hits = cumulative_hits(world.prior_logits(codes), codes)
        mse = torch.stack([mean_squared_error(world.decode(codes, n), clips) for n in lengths])
        errors.append(mse)
        variances.append(explained_variance(mse, clips))
        asked = torch.tensor(lengths, device=codes.device)
        accuracies.append(top_k_accuracy(hits.expand(len(lengths), -1, -1), asked[:, None].expand(-1, len(codes))))
    mse, variance, accuracy = (torch.cat(parts, 1) for parts in (errors, variances, accuracies))
    levels = psnr(mse)
    changes = levels.diff(dim=0).double()
    spread = changes.std(1) if changes.shape[1] > 1 else torch.full_like(changes[:, 0], torch.nan)
    errors_of_mean = spread / changes.shape[1] ** 0.5
    return RateDistortion(
        lengths=lengths,
        psnr=tuple(levels.mean(1).tolist()),
        explained_variance=tuple(variance.quantile(0.5, dim=1).tolist()),
        mse=tuple(mse.mean(1).tolist()),
        prior_top5=tuple(accuracy.mean(1).tolist()),
        codes_used=float(used.float().mean()),
        clips=mse.shape[1],
        rises=tuple(zip(changes.mean(1).tolist(), errors_of_mean.tolist(), strict=True)),
        by_clip=tuple(part.double().cpu() for part in (levels, variance, accuracy)),
    )


@torch.no_grad()
def own_lengths(world: VaporTok, batches: Iterable[Tensor]) -> tuple[float, float]:
    """The most probable lengths of a tokenizer's taildrop module.

    Args:
        world: the tokenizer.
        batches: ``uint8 [B, C, T, H, W]`` each, at least one.

    Returns:
        Their mean, and their rank correlation with the clips' complexity score (NaN where either is constant).
    """
    lengths, scores = [], []
    for batch in batches:
        clips = batch.to(world.device)
        lengths.append(world.taildrop(world.encode(clips).latents).logits.argmax(-1) + 1)
        scores.append(world.complexity_scale.score(clip_complexity(clips)))
    chosen = torch.cat(lengths).double()
    return float(chosen.mean()), spearman(chosen, torch.cat(scores))
