"""Generated clips beside real ones of their class, and how many a classifier recognises (supplement F, Figure 8).

Run: python -m vaportok_rl.experiments.evidence.generations OUT --generator RUN
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from scipy import stats
from torch import Tensor

from vaportok_rl.agents import build_length_policy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.evaluation.intervals import mean_interval
from vaportok_rl.evaluation.stand_in import StandIn
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.evidence.film_strips import pairs_frames, strips_figure, write_animation
from vaportok_rl.experiments.evidence.section import picture, verdict, write_section
from vaportok_rl.experiments.generation.sequences import TRAIN_FILE, encode_sequences
from vaportok_rl.experiments.generation.writing import check_tokenizer, decode_clips, labels_of
from vaportok_rl.generation import ClipGenerator, CodeSequences, SamplingOptions, generate_codes
from vaportok_rl.runtime.markdown import markdown_table

NAME, ANIMATION_FILE, WANTED = "generations", "generations.webp", 0.5
UNGUIDED = "without guidance"
SETS = ("real", "reconstructed", "generated", UNGUIDED)
# Clips judged at once.
_AT_ONCE = 64
_PATH = 8


@dataclass(frozen=True)
class Generations:
    """Settings of the study."""

    generator: Path
    """Run folder of `vaportok-rl generator train`."""
    clips: str = "procedural"
    """Labelled clips that it was trained on; the split `test` is shown and judged."""
    count: int = 64
    """Generated clips of each class."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)
    seed: int = 0
    """Of the generated clips."""


def named(judge: StandIn, clips: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Whether the judge, choosing among the first ``classes`` labels, names each clip's class: ``bool [N]``."""
    logits = torch.cat([judge(some)[:, :classes] for some in clips.split(_AT_ONCE)])
    return logits.argmax(-1) == labels


@torch.no_grad()
def run(out: Path, settings: Generations, console: Console) -> None:
    """See `main`.

    Raises:
        ValueError: the judge does not know the generator's classes.
    """
    model, judge = ClipGenerator.load(settings.generator), StandIn.load()
    config = model.config
    classes = config.label_names
    if judge.label_names[: len(classes)] != classes:
        raise ValueError(
            f"Expected a generator of the judge's classes {', '.join(judge.label_names[:5])}, …, got "
            f"{', '.join(classes[:5])}, …; train the judge on them by `python -m "
            "vaportok_rl.experiments.generation.stand_in`."
        )
    process = TaildropProcess(tokenizer=config.tokenizer, clips=settings.clips, split="test", path_length=_PATH)
    world, source = process.engine.world, process.source
    check_tokenizer(model, config.tokenizer, world)
    out.mkdir(parents=True, exist_ok=True)
    labels = labels_of(model, (), settings.count)
    written, unguided = (
        generate_codes(model, labels, sampling, seed=settings.seed)
        for sampling in (settings.sampling, replace(settings.sampling, guidance=1.0))
    )
    encoded = encode_sequences(process, build_length_policy(config.lengths, process), len(labels), settings.seed)
    real = source.batch(range(min(len(labels), len(source))))
    shown = {
        "real": (real.clips, real.labels),
        "reconstructed": (decode_clips(world, encoded), encoded.labels),
        "generated": (decode_clips(world, written), labels),
        UNGUIDED: (decode_clips(world, unguided), labels),
    }
    right = {name: named(judge, clips, own, len(classes)).double() for name, (clips, own) in shown.items()}
    learnt = CodeSequences.load(settings.generator / TRAIN_FILE)

    rows: list[dict[str, str | float]] = []
    for label, name in enumerate(classes):
        shares = {kind: float(right[kind][shown[kind][1] == label].mean()) for kind in SETS}
        tokens = [float(own.n_tokens[own.labels == label].double().mean()) for own in (learnt, written)]
        rows.append({"class": name, **shares, "tokens_learnt": tokens[0], "tokens": tokens[1]})
    strips, pairs = [], []
    for label, name in enumerate(classes):
        own = {kind: shown[kind][0][shown[kind][1] == label] for kind in ("real", "generated")}
        if len(own["real"]):  # with few clips a class may have none
            clips = [own["real"][0], *own["generated"][[0, -1]]]
            strips.append((name, [("", clip) for clip in clips]))
            pairs.append((name, clips[0], clips[1]))
    drawn = strips_figure("Real and generated clips by class", ("real", "generated", "generated"), strips)
    write_animation(out / ANIMATION_FILE, pairs_frames(pairs))
    write_section(
        out, NAME, _section(settings, config.lengths, rows, right, learnt, (written, unguided)), rows, drawn, console
    )


def _section(
    settings: Generations,
    lengths: str,
    rows: list[dict[str, str | float]],
    right: dict[str, Tensor],
    learnt: CodeSequences,
    written: tuple[CodeSequences, CodeSequences],
) -> list[str]:
    """The section of docs/results.md; ``written`` with and without guidance."""
    intervals = {kind: mean_interval(right[kind].numpy()) for kind in SETS}
    whole = [
        f"{100 * float(right[kind].mean()):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        for kind, (low, high) in intervals.items()
    ]
    table = markdown_table(
        ("class", *(f"{kind} %" for kind in SETS), "tokens learnt", "tokens generated"),
        [
            ("all", *whole, *(f"{float(own.n_tokens.double().mean()):.1f}" for own in (learnt, written[0]))),
            *(
                (
                    row["class"],
                    *(f"{100 * float(row[kind]):.0f}" for kind in SETS),
                    *(f"{float(row[part]):.1f}" for part in ("tokens_learnt", "tokens")),
                )
                for row in rows
            ),
        ],
    )
    apart = [float(stats.ks_2samp(learnt.n_tokens, own.n_tokens).statistic) for own in written]
    return [
        picture(NAME, "A real and two generated clips of each class"),
        f"Class named by the judge, the stand-in feature network, among {len(rows)} classes (chance "
        f"{100 / len(rows):.1f} %); {len(right['generated'])} clips of each kind; 95 % intervals over clips. "
        "The judge was trained on clips of the split `train`, half of them reconstructed; those here are of the split "
        f"`test`. Reconstructed and generated clips keep tokens by the policy `{lengths}`.",
        table,
        f"At least half of the generated clips are named: {verdict(*intervals['generated'], WANTED)}. Generated "
        f"lengths and those learnt: Kolmogorov–Smirnov statistic {apart[0]:.3f}, without guidance {apart[1]:.3f} (0: "
        f"equal, 1: disjoint). Guidance {settings.sampling.guidance:g}, temperature "
        f"{settings.sampling.temperature:g}, seed {settings.seed}.",
    ]


def main(out: tyro.conf.Positional[Path], settings: Annotated[Generations, tyro.conf.arg(name="")]) -> None:
    """Draw generated clips beside real ones, and measure how many of each a classifier names.

    Args:
        out: folder of the pictures, the CSV and the section.
        settings: what is generated.
    """
    run(out, settings, plain_console())


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.evidence.generations")
