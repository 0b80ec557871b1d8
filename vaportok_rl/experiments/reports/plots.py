"""Plots of policies: allocation against complexity, rate–distortion, reward curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vaportok_rl.agents import Comparison
from vaportok_rl.agents.comparison import BEST_FIXED, ORACLE
from vaportok_rl.agents.scoreboard import spoken
from vaportok_rl.runtime.whole_writes import whole_write

COLOURS = {
    "trained": "tab:red",
    "pretrained": "tab:orange",
    "best_fixed": "tab:gray",
    "oracle": "tab:green",
    "random": "tab:purple",
    "complexity": "tab:brown",
}
_MARKERS = "osD^vP<>Xhpd"
_PANELS_A_ROW = 4

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""``training``, ``held_out`` and ``tokens`` as (decisions, value) pairs; any may be missing."""


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG."""
    with whole_write(path) as scratch:
        figure.savefig(scratch, dpi=130, metadata={"Software": None})
    return path


def allocation_figure(comparison: Comparison, score: Tensor, names: Sequence[str]) -> Figure:
    """Tokens kept against the complexity score, one panel per policy.

    Args:
        comparison: scores of the policies.
        score: complexity score ``[P, L]``.
        names: policies to show.
    """
    columns = min(len(names), _PANELS_A_ROW)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels = list(axes.flat)
    for axis, name in zip(panels, names, strict=False):
        lengths = comparison.scores[name].n_tokens
        axis.scatter(score.flatten().cpu(), lengths.flatten().cpu(), s=10, lw=0, alpha=0.5)
        rank = comparison.spearman[name]
        axis.set_title(spoken(name) + ("" if math.isnan(rank) else f" (Spearman {rank:.2f})"), fontsize=9)
        axis.set_xlim(-0.03, 1.03)
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    figure.suptitle("Tokens kept of each held-out clip against its complexity", fontsize=10)
    for number in range(len(names)):
        if number + columns >= len(names):
            panels[number].set_xlabel("complexity score")
        if number % columns == 0:
            panels[number].set_ylabel("tokens kept")
    figure.tight_layout()
    return figure


def rate_distortion_figure(comparison: Comparison) -> Figure:
    """Mean error against mean tokens: all policies, the fixed lengths and the best allocation."""
    figure = Figure(figsize=(7.6, 4.4))
    axis = figure.subplots()
    every = comparison.every
    axis.plot(
        every.n_tokens[:, 0, 0].cpu(), every.mse.flatten(1).mean(1).cpu(), color="black", lw=1, label="fixed length"
    )
    axis.plot(*comparison.equal_tokens.envelope.curve(), color="black", lw=1, ls=":", label="best allocation")
    palette = matplotlib.colormaps["tab20"]
    for number, (name, score) in enumerate(comparison.scores.items()):
        figures = score.metrics()
        axis.plot(
            figures["tokens"],
            figures["mse"],
            _MARKERS[number % len(_MARKERS)],
            color=COLOURS.get(name, palette(number % palette.N)),
            ms=7,
            mec="white",
            mew=0.6,
            ls="",
            label=spoken(name),
        )
    axis.set_title("Below the solid line, a policy beats a fixed length with as many tokens", fontsize=10)
    axis.set_xlabel("mean tokens kept per clip")
    axis.set_ylabel("mean squared error (pixels in 0 … 1)")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:g}")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def reward_curves_figure(runs: Mapping[str, Curves], comparison: Comparison) -> Figure:
    """Training and held-out reward against decisions, with best fixed and oracle, and mean tokens below.

    Args:
        runs: curves by run name.
        comparison: of the horizontal lines.
    """
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    single = len(runs) == 1
    for number, (name, curves) in enumerate(runs.items()):
        colour = f"C{number}"
        prefix = f"{spoken(name)}, " if name else ""
        _line(top, curves.get("training", ()), colour, 0.9, 0.5, f"{prefix}training")
        _line(top, curves.get("held_out", ()), "tab:red" if single else colour, 1.6, 1.0, f"{prefix}held-out")
        _line(bottom, curves.get("tokens", ()), "tab:purple" if single else colour, 1.2, 1.0, "")
    for name, style in ((ORACLE, "--"), (BEST_FIXED, ":"), ("pretrained", "-.")):
        if name in comparison.scores:
            level = comparison.reward(name)
            top.axhline(level, color=COLOURS[name], ls=style, lw=1, label=f"{spoken(name)} (held-out)")
    top.set_title("Reward during training", fontsize=10)
    top.set_ylabel("reward per path")
    figure.legend(*top.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    bottom.set_ylabel("mean tokens kept")
    bottom.set_xlabel("decisions")
    return figure


def _line(
    axis: Axes, points: Sequence[tuple[float, float]], colour: str, width: float, opacity: float, label: str
) -> None:
    if points:
        axis.plot(*zip(*points, strict=True), color=colour, lw=width, alpha=opacity, label=label or None)
