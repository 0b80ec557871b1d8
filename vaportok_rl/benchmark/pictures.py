"""Pictures of the leaderboard: learning curves and performance profiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vaportok_rl.benchmark.methods.registry import METHODS
from vaportok_rl.benchmark.scoring import performance_profile
from vaportok_rl.benchmark.standings import Standing

_THRESHOLDS = np.linspace(-1, 1, 201)


def _style(place: int) -> dict[str, Any]:
    """A colour and a dash of its own for each of thirty lines."""
    return {"color": f"C{place % 10}", "ls": ("-", "--", ":")[place // 10 % 3]}


def curves_figure(found: Mapping[str, Sequence[Standing]]) -> Figure:
    """Mean validation score by decisions, one panel per task with curves."""
    tasks = [name for name, rows in found.items() if any(len(row.curves[0]) > 1 for row in rows if row.curves)]
    figure = Figure(figsize=(4.6 * max(1, len(tasks)), 4.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(tasks)), squeeze=False, sharey=True)[0]
    places = {name: place for place, name in enumerate(METHODS)}
    lines: dict[str, Line2D] = {}
    for axis, name in zip(panels, tasks, strict=False):
        for row in found[name]:
            if row.curves and len(row.curves[0]) > 1:
                decisions = [done for done, _ in row.curves[0]]
                heights = [[score for _, score in curve] for curve in row.curves if len(curve) == len(decisions)]
                style = _style(places.get(row.method, len(places)))
                (lines[row.method],) = axis.plot(decisions, np.mean(heights, 0), lw=1.5, label=row.method, **style)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("decisions")
        # A policy may begin far below the best fixed length.
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(-12, 1)
        axis.set_yticks([-10, -1, -0.5, 0, 0.5, 1], ["−10", "−1", "−0.5", "0", "0.5", "1"])
        axis.grid(alpha=0.2)
    panels[0].set_ylabel("validation score (logarithmic below −1)")
    columns = 4 * len(panels)
    figure.legend(handles=list(lines.values()), fontsize=8, frameon=False, ncols=columns, loc="outside lower center")
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
        axis.plot(_THRESHOLDS, performance_profile(some, _THRESHOLDS), label=method, **_style(place))
    axis.set_xlabel("score τ (0: best fixed length, 1: oracle)")
    axis.set_ylabel("share of runs above τ")
    axis.set_title("Performance profiles over all tasks and seeds", fontsize=10)
    axis.grid(alpha=0.2)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure
