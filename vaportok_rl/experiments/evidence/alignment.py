"""Whether the reward's terms follow the Fréchet distances (supplement C.2, Figure 4).

``python -m vaportok_rl.experiments.evidence.alignment OUT --generators RUN …`` measures rFVD with MSE, and gFVD with
the prior's accuracy, over lengths, policies and worlds. Points that are measured are not measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console

from vaportok_rl.agents import build_length_policy
from vaportok_rl.envs import ScoringEngine, TaildropProcess
from vaportok_rl.evaluation import spearman_interval
from vaportok_rl.evaluation.feature_networks import STAND_IN, open_feature_network
from vaportok_rl.evaluation.intervals import Interval
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.evidence.section import picture, verdict, write_section
from vaportok_rl.experiments.generation.length_distances import DistanceSettings, LengthDistances
from vaportok_rl.experiments.run_folder import write_json
from vaportok_rl.experiments.sweeps.columns import COLUMNS
from vaportok_rl.generation import ClipGenerator
from vaportok_rl.runtime.machine import processor_name
from vaportok_rl.runtime.markdown import markdown_table

NAME, POINTS_FILE = "alignment", "points.json"
# Distance, reward quantity, and the sign of the source's correlation.
PAIRS = (("rfvd", "mse", 1), ("gfvd", "accuracy", -1))
NAMES = {"rfvd": "rFVD", "mse": "MSE", "gfvd": "gFVD", "accuracy": "prior top-5 accuracy"}
FEWEST = 16
_PATH = 8


@dataclass(frozen=True)
class Alignment:
    """Settings of the study."""

    generators: tuple[str, ...]
    """Run folders of `generator train`, each trained on all tokens (`--lengths fixed:K` or `naive`). Each names its
    tokenizer, which makes it a world."""
    lengths: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64)
    """Fixed lengths; those above K are left out."""
    policies: tuple[str, ...] = ("argmax", "sample", "complexity")
    """Length policies of every world, as `rollout --policy` takes them."""
    agents: tuple[str, ...] = ()
    """Trained agents of the first world."""
    clips: str = "procedural"
    """Labelled clips; the split `test` is measured."""
    count: int = 512
    """Held-out clips, rounded down to whole paths, and as many generated ones."""
    network: str = STAND_IN
    """Feature network, as `vaportok-rl distance` takes it."""
    seed: int = 0
    """Of the generated clips and of policies that draw."""
    device: str = "cpu"
    """torch device."""

    @property
    def measured(self) -> int:
        """Held-out clips in whole paths."""
        return self.count // _PATH * _PATH


@dataclass(frozen=True)
class Point:
    """One policy on one world; means over clips.

    Attributes:
        world: name of the tokenizer.
        policy: name of the policy.
        tokens: kept.
        mse: of reconstructions, pixels in [0, 1].
        accuracy: of the prior among its top 5, in [0, 1].
        rfvd: reconstructions against the clips.
        gfvd: generated clips of the same lengths against the clips.
    """

    world: str
    policy: str
    tokens: float
    mse: float
    accuracy: float
    rfvd: float
    gfvd: float


def measure(settings: Alignment, out: Path, console: Console) -> list[Point]:
    """Measures the points that ``points.json`` does not have yet.

    Raises:
        ValueError: a generator was not trained on all tokens.
    """
    file = out / POINTS_FILE
    known = json.loads(file.read_text()) if file.is_file() else {}
    network = open_feature_network(settings.network)
    points = []
    for place, folder in enumerate(settings.generators):
        model = ClipGenerator.load(folder)
        config = model.config
        if config.lengths not in ("naive", f"fixed:{config.tokens}"):
            raise ValueError(
                f"Expected a generator trained on all tokens, got {folder}, which was trained on {config.lengths}; "
                f"train one with --lengths fixed:{config.tokens}."
            )
        world = Path(config.tokenizer).parent.name or config.tokenizer
        process = TaildropProcess(
            tokenizer=config.tokenizer,
            clips=settings.clips,
            split="test",
            device=settings.device,
            path_length=_PATH,
        )
        batch = process.source.batch(range(settings.measured))
        assert isinstance(process.engine, ScoringEngine)  # there is no table
        scene = process.engine.encode(
            *(part.unflatten(0, (-1, _PATH)) for part in (batch.clips, batch.labels, batch.ids))
        )
        distances: LengthDistances | None = None
        fixed = [f"fixed:{n}" for n in settings.lengths if n <= config.tokens]
        for spec in (*fixed, *settings.policies, *(settings.agents if place == 0 else ())):
            generator = torch.Generator().manual_seed(settings.seed)
            n_tokens = process.token_range.clip_paths(build_length_policy(spec, process)(scene, generator).n_tokens)
            # Everything that a point depends on.
            identity = [model.fingerprint(), network.sha256, process.source.identity, settings.seed, n_tokens.tolist()]
            key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
            if key not in known:
                outcome = process.engine.score(scene, n_tokens[None])
                distances = distances or LengthDistances(
                    DistanceSettings(settings.network, folder), process, scene, settings.seed
                )
                found = distances(n_tokens)
                known[key] = {
                    "tokens": float(n_tokens.double().mean()),
                    "mse": float(outcome.mse.double().mean()),
                    "accuracy": float(outcome.accuracy.double().mean()),
                    "rfvd": found["rfvd"].frechet,
                    "gfvd": found["gfvd"].frechet,
                }
                write_json(file, known)
            name = "trained agent" if spec in settings.agents else spec
            points.append(Point(world, name, **known[key]))
            console.print(f"{world}, {name}: {points[-1].tokens:.1f} tokens", highlight=False)
    return points


def _correlation(points: Sequence[Point], distance: str, quantity: str) -> tuple[float, Interval]:
    first, second = ([getattr(point, part) for point in points] for part in (distance, quantity))
    return spearman_interval(first, second)


def correlations(points: Sequence[Point]) -> str:
    """Spearman's correlations over all points and within each world, and whether the source's sign is found."""
    rows = []
    worlds = list(dict.fromkeys(point.world for point in points))
    for name in ("all points", *(worlds if len(worlds) > 1 else ())):
        own = [point for point in points if name in ("all points", point.world)]
        for distance, quantity, sign in PAIRS:
            rho, (low, high) = _correlation(own, distance, quantity)
            rows.append(
                (
                    f"ρ({NAMES[distance]}, {NAMES[quantity]})",
                    name,
                    "strong positive" if sign > 0 else "strong negative",
                    verdict(*sorted((sign * low, sign * high))),
                    f"{len(own)}",
                    f"{rho:+.2f} [{low:+.2f}, {high:+.2f}]",
                )
            )
    return markdown_table(("Spearman", "over", "the source", "its sign here", "points", "ours"), rows, names=4)


def points_table(points: Sequence[Point]) -> str:
    """One row per point."""
    rows = (
        (
            point.world,
            point.policy,
            f"{point.tokens:.1f}",
            f"{1000 * point.mse:.2f}",
            f"{point.rfvd:{COLUMNS['rfvd'].style}}",
            f"{100 * point.accuracy:.1f}",
            f"{point.gfvd:{COLUMNS['gfvd'].style}}",
        )
        for point in points
    )
    return markdown_table(("world", "lengths", "tokens", "MSE·10³", "rFVD", "top-5 %", "gFVD"), rows, names=2)


def _name_some(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, so few that they do not touch."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def figure(points: Sequence[Point]) -> Figure:
    """Two scatter plots: rFVD against MSE, gFVD against accuracy; colours are tokens, markers worlds."""
    drawn = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes: Sequence[Axes] = drawn.subplots(1, 2)
    worlds = list(dict.fromkeys(point.world for point in points))
    most = max(point.tokens for point in points)
    for axis, (distance, quantity, _) in zip(axes, PAIRS, strict=True):
        for marker, world in zip("osD^vP<>Xh" * len(worlds), worlds, strict=False):
            own = [point for point in points if point.world == world]
            shown = axis.scatter(
                [getattr(point, quantity) for point in own],
                [getattr(point, distance) for point in own],
                c=[point.tokens for point in own],
                vmin=0,
                vmax=most,
                marker=marker,
                edgecolors="black",
                linewidths=0.4,
                label=world,
            )
        rho, (low, high) = _correlation(points, distance, quantity)
        axis.set_title(f"{NAMES[distance]}: Spearman {rho:+.2f} [{low:+.2f}, {high:+.2f}]", fontsize=10)
        axis.set_ylabel(f"{NAMES[distance]} (Fréchet distance of features)")
        axis.set_yscale("log")
        _name_some(axis.yaxis)
    axes[0].set_xlabel("mean squared error (pixels in 0 … 1)")
    axes[0].set_xscale("log")
    _name_some(axes[0].xaxis)
    axes[1].set_xlabel("top-5 accuracy of the prior")
    axes[0].legend(frameon=False, fontsize=8, title="world", title_fontsize=8)
    drawn.colorbar(shown, ax=axes, label="mean tokens kept")
    return drawn


def run(out: Path, settings: Alignment, console: Console) -> None:
    """See `main`."""
    out.mkdir(parents=True, exist_ok=True)
    points = measure(settings, out, console)
    network = open_feature_network(settings.network)
    few = "" if len(points) >= FEWEST else f" Fewer than {FEWEST} points: the intervals say little."
    paragraphs = (
        correlations(points),
        f"In brackets: 95 % bootstrap intervals over points.{few}",
        picture(NAME, "rFVD against MSE, gFVD against the prior's accuracy"),
        points_table(points),
        f"Means over {settings.measured} held-out clips; one generator per world, trained on all tokens, writes clips "
        f"of the policy's lengths. Features of {network.name}, SHA-256 {network.sha256[:12]}; seed {settings.seed}; "
        f"measured on {processor_name()}.",
    )
    write_section(out, NAME, paragraphs, list(map(asdict, points)), figure(points), console)


def main(out: tyro.conf.Positional[Path], settings: Annotated[Alignment, tyro.conf.arg(name="")]) -> None:
    """Measure how rFVD follows MSE, and gFVD the prior's accuracy, over lengths, policies and worlds.

    Args:
        out: folder of the points, the table, the CSV and the picture.
        settings: the study.
    """
    run(out, settings, plain_console())


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.evidence.alignment")
