"""The same clips in the source and reconstructed from more and more tokens (supplement F, Figure 7).

Run: python -m vaportok_rl.experiments.evidence.reconstructions OUT
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from vaportok_rl.agents import build_length_policy
from vaportok_rl.envs import ScoringEngine, TaildropProcess
from vaportok_rl.evaluation import mean_squared_error, psnr
from vaportok_rl.experiments.console import plain_console
from vaportok_rl.experiments.evidence.film_strips import Strip, strips_figure
from vaportok_rl.experiments.evidence.section import picture, write_section
from vaportok_rl.experiments.reports.pictures import legible_rows

NAME = "reconstructions"
# Held-out clips from which the columns are chosen.
_CLIPS = 64


@dataclass(frozen=True)
class Reconstructions:
    """Settings of the picture."""

    tokenizer: str = "nano"
    """A shipped name, a checkpoint folder or a hub id."""
    clips: str = "procedural"
    """Clips, of which the split `test` is shown."""
    lengths: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Tokens kept, a row each; those above K are left out."""
    policies: tuple[str, ...] = ("argmax",)
    """Length policies, a row each, as `rollout --policy` takes them."""
    count: int = 4
    """Clips, from simple to complex."""
    seed: int = 0
    """Of policies that draw."""


@torch.no_grad()
def run(out: Path, settings: Reconstructions, console: Console) -> None:
    """See `main`."""
    out.mkdir(parents=True, exist_ok=True)
    process = TaildropProcess(tokenizer=settings.tokenizer, clips=settings.clips, split="test", path_length=1)
    engine, source = process.engine, process.source
    assert isinstance(engine, ScoringEngine)  # there is no table
    batch = source.batch(range(min(_CLIPS, len(source))))
    scene = engine.encode(batch.clips[:, None], batch.labels[:, None], batch.ids[:, None])
    score = engine.complexity_scale.score(scene.complexity).flatten()
    chosen = legible_rows(score, batch.clips, settings.count)
    clips, codes = batch.clips[chosen], scene.codes[chosen, 0]
    kept = {f"n = {n}": torch.full((len(chosen),), n) for n in settings.lengths if n <= process.tokens}
    for spec in settings.policies:
        lengths = build_length_policy(spec, process)(scene, torch.Generator().manual_seed(settings.seed)).n_tokens
        kept[Path(spec).name] = lengths[chosen, 0]
    strips: list[tuple[str, list[Strip]]] = [("source", [("", clip) for clip in clips])]
    rows = []
    for name, n_tokens in kept.items():
        decoded = engine.world.decode(codes, n_tokens)
        quality = psnr(mean_squared_error(decoded, clips)).tolist()
        strips.append(
            (
                name,
                [
                    (f"{n} tokens, {level:.1f} dB", clip)
                    for n, level, clip in zip(n_tokens.tolist(), quality, decoded, strict=True)
                ],
            )
        )
        rows += [
            {"clip": int(batch.ids[row]), "lengths": name, "tokens": n, "psnr": level}
            for row, n, level in zip(chosen, n_tokens.tolist(), quality, strict=True)
        ]
    titles = [source.label_names[label] for label in batch.labels[chosen].tolist()]
    drawn = strips_figure(f"Held-out clips under {Path(settings.tokenizer).name}, by tokens kept", titles, strips)
    caption = "Held-out clips, and their reconstructions from more and more tokens"
    write_section(out, NAME, [picture(NAME, caption)], rows, drawn, console)


def main(out: tyro.conf.Positional[Path], settings: Annotated[Reconstructions, tyro.conf.arg(name="")]) -> None:
    """Draw held-out clips and their reconstructions at several lengths.

    Args:
        out: folder of the picture, the CSV and the section.
        settings: what is shown.
    """
    run(out, settings, plain_console())


if __name__ == "__main__":
    tyro.cli(main, prog="python -m vaportok_rl.experiments.evidence.reconstructions")
