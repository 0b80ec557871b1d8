"""Film strips, the animation, and the studies that draw them, on a tiny world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.evaluation.stand_in import StandIn
from vaportok_rl.experiments.evidence import film_strips, reconstructions
from vaportok_rl.experiments.evidence.film_strips import pairs_frames, write_animation
from vaportok_rl.experiments.evidence.reconstructions import Reconstructions
from vaportok_rl.tokenizer import VaporTok

QUIET = Console(quiet=True)


def clip(seed: int, size: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (3, 4, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_pixels_of_an_animation_are_enlarged_by_whole_factors(tmp_path: Path) -> None:
    pairs = [(f"class {seed}", clip(seed), clip(seed + 10)) for seed in range(3)]
    frames = pairs_frames(pairs, columns=2, scale=3)
    with Image.open(write_animation(tmp_path / "clips.webp", frames)) as opened:
        for moment, frame in enumerate(frames):
            opened.seek(moment)
            assert np.array_equal(np.array(opened.convert("RGB")), frame)  # lossless
    for _, left, right in pairs:
        wide = torch.cat([left, right], 3).repeat_interleave(3, 2).repeat_interleave(3, 3).permute(1, 2, 3, 0).numpy()
        height, width = wide.shape[1:3]
        places = [
            (y, x)
            for y in range(frames.shape[1] - height + 1)
            for x in range(frames.shape[2] - width + 1)
            if np.array_equal(frames[:, y : y + height, x : x + width], wide)
        ]
        assert len(places) == 1


def test_an_animation_that_is_too_large_gets_coarser_and_then_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pairs_frames([("noise", clip(0, 64), clip(1, 64))])
    whole = write_animation(tmp_path / "whole.webp", frames).stat().st_size
    monkeypatch.setattr(film_strips, "ANIMATION_BYTES", 3 * whole // 4)
    assert write_animation(tmp_path / "coarse.webp", frames).stat().st_size < 3 * whole // 4
    monkeypatch.setattr(film_strips, "ANIMATION_BYTES", 100)
    with pytest.raises(ValueError, match="less than 100 bytes"):
        write_animation(tmp_path / "none.webp", frames)


def test_reconstructions_are_the_decoded_clips(tiny_world: str, tmp_path: Path) -> None:
    settings = Reconstructions(tokenizer=tiny_world, lengths=(2, 16, 64), count=2)
    reconstructions.run(tmp_path, settings, QUIET)
    rows = pd.read_csv(tmp_path / "reconstructions.csv")
    assert rows["lengths"].tolist() == ["n = 2"] * 2 + ["n = 16"] * 2 + ["argmax"] * 2
    world = VaporTok.from_pretrained(tiny_world)
    source = ProceduralClips(split="test", frames=4, size=16)
    for row in rows.to_dict("records"):
        original = source.batch([row["clip"]]).clips
        again = world.decode(world.encode(original).codes, torch.tensor([row["tokens"]]))
        error = (again - original.float() / 255).square().mean().item()
        assert row["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.01)
    assert (tmp_path / "reconstructions.png").stat().st_size > 5000
    assert "images/evidence/reconstructions.png" in (tmp_path / "reconstructions.md").read_text()


def test_generations_name_what_the_judge_names(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from vaportok_rl.envs import TaildropProcess
    from vaportok_rl.envs.table.shards import weights_digest
    from vaportok_rl.experiments.evidence import generations
    from vaportok_rl.experiments.generation.sequences import TRAIN_FILE
    from vaportok_rl.generation import ClipGenerator, CodeSequences, GeneratorConfig

    source = TaildropProcess(tokenizer=tiny_world, split="test", path_length=1).source
    names = tuple(source.label_names)
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    config = replace(config, tokenizer=tiny_world, weights=weights_digest(tiny_world)[:16], lengths="fixed:3")
    folder = tmp_path / "generator"
    ClipGenerator(config).save(folder / "model")
    ones = torch.ones(18, dtype=torch.int64)
    CodeSequences(torch.zeros(18, 16, dtype=torch.int64), ones, torch.arange(18), names, 32).save(folder / TRAIN_FILE)

    def labelled(judge: StandIn, clips: torch.Tensor) -> torch.Tensor:
        """Says class 0 of everything, and of a game with more certainty."""
        logits = torch.zeros(len(clips), len(judge.label_names))
        logits[:, 0], logits[:, len(names) :] = 1, 2
        return logits

    monkeypatch.setattr(StandIn, "forward", labelled)
    generations.run(tmp_path, generations.Generations(folder, count=4), QUIET)
    rows = pd.read_csv(tmp_path / "generations.csv")
    assert rows["class"].tolist() == list(names)
    assert rows["generated"].tolist() == [1.0] + [0.0] * 17
    assert rows["tokens_learnt"].tolist() == [1.0] * 18
    page = (tmp_path / "generations.md").read_text()
    assert "| all |" in page
    share = (source.batch(range(72)).labels == 0).float().mean().item()
    assert f"| {100 * share:.1f} [" in page
    assert "are named: does not hold" in page
    assert (tmp_path / generations.ANIMATION_FILE).stat().st_size < 2_000_000
    assert (tmp_path / "generations.png").stat().st_size > 5000
    other = ClipGenerator(replace(config, label_names=("a", "b")))
    other.save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"judge's classes .* got a, b"):
        generations.run(tmp_path, generations.Generations(tmp_path / "other"), QUIET)


def test_clips_without_guidance_are_told_from_those_with(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips are as bright as their tokens are many, and the judge reads the class from the brightness."""
    pytest.importorskip("transformers")
    from vaportok_rl.envs.table.shards import weights_digest
    from vaportok_rl.experiments.evidence import generations
    from vaportok_rl.experiments.generation.sequences import TRAIN_FILE
    from vaportok_rl.generation import ClipGenerator, CodeSequences, GeneratorConfig, SamplingOptions

    names = tuple(ProceduralClips(split="test", frames=4, size=16).label_names)
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    config = replace(config, tokenizer=tiny_world, weights=weights_digest(tiny_world)[:16], lengths="fixed:4")
    folder, asked = tmp_path / "generator", []
    ClipGenerator(config).save(folder / "model")
    threes = torch.full((18,), 3)
    CodeSequences(torch.zeros(18, 16, dtype=torch.int64), threes, torch.arange(18), names, 32).save(folder / TRAIN_FILE)
    generate = generations.generate_codes

    def noted(model: ClipGenerator, labels: torch.Tensor, sampling: SamplingOptions, *, seed: int) -> CodeSequences:
        asked.append(sampling.guidance)
        kept = torch.full_like(labels, 2 if sampling.guidance == 1 else 3)
        return replace(generate(model, labels, sampling, seed=seed), n_tokens=kept)

    def shown(_: VaporTok, sequences: CodeSequences) -> torch.Tensor:
        return sequences.n_tokens.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 3, 4, 16, 16)

    def brightness(judge: StandIn, clips: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(clips[:, 0, 0, 0, 0].long(), 256).float()

    monkeypatch.setattr(generations, "generate_codes", noted)
    monkeypatch.setattr(generations, "decode_clips", shown)
    monkeypatch.setattr(StandIn, "forward", brightness)
    settings = generations.Generations(folder, count=2, sampling=SamplingOptions(guidance=2.5))
    generations.run(tmp_path, settings, QUIET)
    assert asked == [2.5, 1.0]
    rows = pd.read_csv(tmp_path / "generations.csv")
    for place, kind in ((4, "reconstructed"), (3, "generated"), (2, "without guidance")):
        assert set(np.flatnonzero(rows[kind].fillna(0))) <= {place}, kind  # of few clips a class may have none
    assert (rows["generated"][3], rows["without guidance"][2]) == (1, 1)
    page = (tmp_path / "generations.md").read_text()
    assert "statistic 0.000, without guidance 1.000" in page
    assert page.count(" 3.0 | 3.0 |") == 19
    assert "the policy `fixed:4`" in page
