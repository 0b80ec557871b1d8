"""Pictures of the leaderboard: learning curves and performance profiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.scoring import performance_profile
from vaportok_rl.benchmark.standings import Standing

_THRESHOLDS = np.linspace(-1, 1, 201)


def curves_figure(found: Mapping[str, Sequence[Standing]]) -> Figure:
    """Mean validation score by decisions, one panel per task with curves."""
    tasks = [name for name, rows in found.items() if any(len(row.curves[0]) > 1 for row in rows if row.curves)]
    figure = Figure(figsize=(4.6 * max(1, len(tasks)), 3.8))
    panels = figure.subplots(1, max(1, len(tasks)), squeeze=False)[0]
    colours = {name: f"C{place % 10}" for place, name in enumerate(METHODS)}
    for axis, name in zip(panels, tasks, strict=False):
        for row in found[name]:
            if row.curves and len(row.curves[0]) > 1:
                decisions = [done for done, _ in row.curves[0]]
                heights = [[score for _, score in curve] for curve in row.curves if len(curve) == len(decisions)]
                axis.plot(decisions, np.mean(heights, 0), color=colours.get(row.method), lw=1.5, label=row.method)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("decisions")
        axis.set_ylim(-1, 1)
        axis.grid(alpha=0.2)
        axis.legend(fontsize=7, frameon=False, loc="lower right")
    panels[0].set_ylabel("score on validation scenes")
    figure.tight_layout()
    return figure


def profile_figure(found: Mapping[str, Sequence[Standing]]) -> Figure:
    """Performance profiles: the share of all runs of all tasks whose score exceeds each height."""
    scores: dict[str, list[float]] = defaultdict(list)
    for rows in found.values():
        for row in rows:
            scores[row.method] += row.scores.tolist()
    figure = Figure(figsize=(7.0, 4.2))
    axis = figure.subplots()
    for place, (method, some) in enumerate(sorted(scores.items(), key=lambda pair: -np.mean(pair[1]))):
        style = ("-", "--", ":")[place // 10]
        axis.plot(_THRESHOLDS, performance_profile(some, _THRESHOLDS), style, color=f"C{place % 10}", label=method)
    axis.set_xlabel("score τ (0: best fixed length, 1: oracle)")
    axis.set_ylabel("share of runs above τ")
    axis.set_title("Performance profiles over all tasks and seeds", fontsize=10)
    axis.grid(alpha=0.2)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure
