"""The comparison of taildrop strategies, on a tokenizer that trains in a second."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.experiments.strategies import FIGURE_FILE, TABLE_FILE, Strategies, measure_kept
from vaportok_rl.tokenizer import PRESETS, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig
from vaportok_rl.tokenizer.pretraining.resuming import STATE_FILE

BUDGET = PretrainConfig(
    steps=6,
    batch_size=4,
    precision="float32",
    continuous_until=0.2,
    quantized_from=0.4,
    random_lengths_from=0.5,
    length_mixture=(1, 0, 0),
    calibration_clips=16,
    codebook_clips=8,
)


@pytest.fixture
def comparison(tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Strategies:
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    return Strategies(preset="tiny", count=10, out=tmp_path / "runs", docs=tmp_path / "docs", config=BUDGET)


def test_every_strategy_has_a_row_and_a_picture(comparison: Strategies, tmp_path: Path) -> None:
    comparison.run(Console(quiet=True))
    page = (tmp_path / "docs" / TABLE_FILE).read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert [row.split("|")[1].strip() for row in rows] == ["naive", "argmax", "sample", "pre-sample"] + ["naive"] * 4
    assert "| all K tokens | 8.0 |" in rows[0]
    assert all("argmax of P" in row for row in rows[1:4])
    at_four = {row.split("|")[1].strip(): float(row.split("|")[8]) for row in rows[:4]}
    named = re.search(r"Of the four, `(.*?)` has the most content in its first 4 tokens", page)
    assert named is not None
    assert at_four[named[1]] == max(at_four.values())
    assert (tmp_path / "docs" / "images" / FIGURE_FILE).stat().st_size > 5000
    # A finished comparison is measured again, not trained again, and says the same.
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob(f"*/{STATE_FILE}")}
    assert len(states) == 4
    comparison.run(Console(quiet=True))
    assert (tmp_path / "docs" / TABLE_FILE).read_text() == page
    assert {path: path.stat().st_mtime_ns for path in states} == states


def test_another_budget_is_not_mixed_in(comparison: Strategies) -> None:
    comparison.run(Console(quiet=True))
    with pytest.raises(ValueError, match="got other values for steps"):
        replace(comparison, config=replace(BUDGET, steps=8)).run(Console(quiet=True))


def test_a_rule_is_measured_clip_by_clip(tiny_config: VaporTokConfig) -> None:
    torch.manual_seed(0)
    world = VaporTok(tiny_config).freeze()
    clips = ProceduralClips(frames=4, size=16).batch(range(70)).clips  # more than one batch
    lengths = torch.arange(70) % 8 + 1
    rows = iter(lengths.split(64))
    kept = measure_kept(world, clips, "by turns", lambda some, latents, codes: next(rows))
    codes = world.encode(clips).codes
    errors = [
        (world.decode(codes[row : row + 1], int(n))[0] - clips[row] / 255).square().mean().item()
        for row, n in enumerate(lengths)
    ]
    assert kept.tokens == pytest.approx(lengths.float().mean().item())
    assert kept.mse == pytest.approx(sum(errors) / 70, rel=1e-4)
    best = world.prior_logits(codes).topk(5).indices
    hits = (best == codes[:, 1:, None]).any(-1)
    shares = [hits[row, : int(n) - 1].float().mean().item() if n > 1 else 0.0 for row, n in enumerate(lengths)]
    assert kept.prior_top5 == pytest.approx(sum(shares) / 70, abs=1e-5)
