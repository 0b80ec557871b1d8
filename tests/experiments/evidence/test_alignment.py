"""Points of the alignment against clips decoded here, and its correlations against SciPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.ticker import NullFormatter
from rich.console import Console
from scipy import stats

pytest.importorskip("transformers")

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance
from vaportok_rl.evaluation.feature_networks import open_feature_network
from vaportok_rl.experiments.evidence import alignment
from vaportok_rl.experiments.evidence.alignment import Alignment, Point, correlations, run
from vaportok_rl.generation import ClipGenerator, GeneratorConfig, generate_codes
from vaportok_rl.tokenizer import VaporTok

QUIET = Console(quiet=True)


def test_points_are_of_the_beginnings_of_the_same_clips(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ProceduralClips(split="test", frames=4, size=16)
    names, digest = tuple(source.label_names), weights_digest(tiny_world)[:16]
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    config = replace(config, tokenizer=tiny_world, weights=digest, lengths="fixed:16")
    ClipGenerator(config).save(tmp_path / "generator")
    model = ClipGenerator.load(tmp_path / "generator")
    settings = Alignment((str(tmp_path / "generator"),), lengths=(2, 9, 64), policies=("sample",), count=24)
    run(tmp_path / "out", settings, QUIET)
    rows = pd.read_csv(tmp_path / "out" / "alignment.csv")
    assert rows["policy"].tolist() == ["fixed:2", "fixed:9", "sample"]
    world, network, batch = VaporTok.from_pretrained(tiny_world), open_feature_network(), source.batch(range(24))
    real = FeatureStatistics.of(network(batch.clips))
    written = generate_codes(model, batch.labels, n_tokens=torch.full((24,), 9))
    assert written.n_tokens.tolist() == [9] * 24
    for column, codes in (("rfvd", world.encode(batch.clips).codes), ("gfvd", written.codes)):
        clips = (world.decode(codes, 9) * 255).round().to(torch.uint8)
        wanted = frechet_distance(real, FeatureStatistics.of(network(clips)), allow_few=True)
        assert rows[column][1] == pytest.approx(wanted, rel=1e-3)
    page = (tmp_path / "out" / "alignment.md").read_text()
    assert "Fewer than 16 points" in page
    assert (tmp_path / "out" / "alignment.png").stat().st_size > 5000
    # A second run finds its points.
    monkeypatch.setattr(alignment, "LengthDistances", None)
    run(tmp_path / "out", settings, QUIET)
    assert (tmp_path / "out" / "alignment.md").read_text() == page
    ClipGenerator(replace(config, lengths="argmax")).save(tmp_path / "short")
    with pytest.raises(ValueError, match=r"trained on argmax.*fixed:16"):
        run(tmp_path / "out", replace(settings, generators=(str(tmp_path / "short"),)), QUIET)


def test_the_sign_holds_beyond_the_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    errors, noise = torch.rand(2, 20, generator=generator)
    points = [
        Point("a" if place % 2 else "b", "fixed", 1.0, error, other, 2 * error, error)
        for place, (error, other) in enumerate(zip(errors.tolist(), noise.tolist(), strict=True))
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in correlations(points).splitlines()[2:]]
    assert [row[1] for row in rows] == ["all points"] * 2 + ["b"] * 2 + ["a"] * 2
    assert rows[0][2:] == ["strong positive", "holds", "20", "+1.00 [+1.00, +1.00]"]
    assert rows[1][5].startswith(f"{stats.spearmanr(errors, noise).statistic:+.2f}")
    assert rows[1][3] == "undecided"
    wrong = [replace(point, accuracy=point.gfvd) for point in points]
    assert "does not hold" in correlations(wrong)


def test_the_numbers_of_a_logarithmic_axis_are_few_and_plain() -> None:
    points = [Point("a", "fixed", n, n / 300, n / 100, 500.0 + 10 * n, 500.0 + n) for n in range(1, 30)]
    left, right = alignment.figure(points).axes[:2]
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        assert isinstance(axis.get_minor_formatter(), NullFormatter)
        assert axis.get_major_formatter()(0.05, 0) == "0.05"


def test_distances_are_written_without_exponents() -> None:
    table = alignment.points_table([Point("a", "fixed:2", 2.0, 0.05, 0.1, 1064.9, 786.5)])
    assert "| 1065 | 10.0 | 786.5 |" in table


def test_the_page_counts_the_clips_of_whole_paths(tiny_world: str, tmp_path: Path) -> None:
    source = ProceduralClips(split="test", frames=4, size=16)
    names, digest = tuple(source.label_names), weights_digest(tiny_world)[:16]
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    ClipGenerator(replace(config, tokenizer=tiny_world, weights=digest, lengths="fixed:16")).save(
        tmp_path / "generator"
    )
    run(tmp_path / "out", Alignment((str(tmp_path / "generator"),), lengths=(2, 9), policies=(), count=23), QUIET)
    assert "Means over 16 held-out clips" in (tmp_path / "out" / "alignment.md").read_text()
