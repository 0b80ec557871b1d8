"""Plots of a training run: allocation against complexity, rate–distortion, reward curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from vaportok_rl.agents import Comparison
from vaportok_rl.envs import Outcome

COLOURS = {"trained": "tab:blue", "pretrained": "tab:orange", "best_fixed": "tab:gray", "oracle": "tab:green"}


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG and closes it."""
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
    return path


def allocation_figure(comparison: Comparison, score: Tensor, labels: Tensor, names: Sequence[str]) -> Figure:
    """Tokens kept against the complexity score, a panel a policy, coloured by label.

    Args:
        comparison: scores of the policies.
        score: complexity score ``[P, L]``.
        labels: ``int64 [P, L]``.
        names: policies to show.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.6), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        lengths = comparison.scores[name].n_tokens
        axis.scatter(score.flatten().cpu(), lengths.flatten().cpu(), c=labels.flatten().cpu(), cmap="tab20", s=10, lw=0)
        axis.set_title(f"{name.replace('_', ' ')}: ρ = {comparison.spearman[name]:.2f}")
        axis.set_xlabel("complexity score")
    axes[0][0].set_ylabel("tokens kept")
    figure.tight_layout()
    return figure


def rate_distortion_figure(comparison: Comparison, every: Outcome) -> Figure:
    """Mean PSNR of every fixed length, with each policy's mean tokens and PSNR on it."""
    figure, axis = plt.subplots(figsize=(5.4, 4))
    lengths = every.n_tokens[:, 0, 0].cpu()
    axis.plot(lengths, every.psnr.flatten(1).mean(1).cpu(), color="black", lw=1, label="fixed length")
    for name, score in comparison.scores.items():
        figures = score.figures()
        axis.plot(figures["tokens"], figures["psnr"], "o", color=COLOURS.get(name), ms=7, label=name.replace("_", " "))
    axis.set_xlabel("mean tokens kept")
    axis.set_ylabel("PSNR (dB)")
    axis.set_xscale("log", base=2)
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def reward_figure(curves: Mapping[str, Sequence[tuple[int, float]]], comparison: Comparison) -> Figure:
    """Training and held-out reward against decisions, between best fixed and oracle, and mean tokens below.

    Args:
        curves: ``training``, ``held_out`` and ``tokens`` as (decisions, value) pairs.
        comparison: gives the horizontal lines.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6, 5.4), sharex=True, height_ratios=(2, 1))
    for name, colour in (("training", "tab:blue"), ("held_out", "tab:red")):
        if curves[name]:
            top.plot(*zip(*curves[name], strict=True), color=colour, lw=1.2, label=name.replace("_", "-"))
    for name, style in (("oracle", "--"), ("best_fixed", ":"), ("pretrained", "-.")):
        if name in comparison.scores:
            top.axhline(
                comparison.reward(name),
                color=COLOURS[name],
                ls=style,
                lw=1,
                label=f"{name.replace('_', ' ')} (held-out)",
            )
    top.set_ylabel("path reward")
    top.legend(frameon=False, fontsize=8)
    if curves["tokens"]:
        bottom.plot(*zip(*curves["tokens"], strict=True), color="tab:purple", lw=1.2)
    bottom.set_ylabel("mean tokens")
    bottom.set_xlabel("decisions")
    figure.tight_layout()
    return figure
