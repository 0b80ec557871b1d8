"""The benchmarks: counted operations equal computed ones, and every part writes its section."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from benchmarks import engine, growth, kernels, memory, table, timing, training, worlds
from vaportok_rl.envs import ScoringEngine, shared_world
from vaportok_rl.tokenizer import VaporTok


@pytest.fixture
def tiny(tiny_world: str) -> VaporTok:
    return shared_world(tiny_world)


def test_products_are_those_of_a_linear_layer() -> None:
    layer = torch.nn.Linear(3, 5)
    assert timing.multiplications(lambda: layer(torch.ones(7, 3))) == 7 * 3 * 5


def test_lengths_have_the_mean_that_is_asked_for() -> None:
    lengths = worlds.random_lengths((8, 4, 4), 19.2, 64)
    assert lengths.float().mean().item() == pytest.approx(19.2, abs=0.5)
    assert (lengths.min() >= 1) & (lengths.max() <= 64)
    assert worlds.random_lengths((1, 1, 2), 64, 64).tolist() == [[[64, 64]]]


def test_alternatives_take_turns() -> None:
    calls: list[str] = []
    taken = timing.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 2)  # type: ignore[misc]
    assert "".join(calls) == "ababab"
    assert set(taken) == {"a", "b"}


def test_sections(tiny: VaporTok, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine, growth, kernels, memory, training, worlds):
        if hasattr(module, "nano"):
            monkeypatch.setattr(module, "nano", lambda: tiny)
        if hasattr(module, "large_world"):
            monkeypatch.setattr(module, "large_world", lambda quick, depth=None: tiny)
    monkeypatch.setattr(kernels, "POSITIONS", 16)
    monkeypatch.setattr(kernels, "busy", nullcontext)
    monkeypatch.setattr(growth, "TOKENS", (4, 8))
    monkeypatch.setattr(growth, "random_world", lambda config: tiny)
    assert "vaportok-b geometry" in engine.section(quick=True)
    assert "clips/s | clips | forward" in training.section(quick=True)
    monkeypatch.setattr(training, "ROWS", 16)
    assert kernels.section(quick=True).count("plain /") == 2
    assert "How cost grows" in growth.section(quick=True)
    for name in ("nano", "vaportok-b"):
        peak, at_once = memory.measure(name, 4, quick=True).split(", ")
        assert float(peak.removesuffix(" GiB")) > 0
        assert int(at_once) == ScoringEngine(tiny).clips_at_once


def test_the_table_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "QUICK", table.Effort(clips=8, environments=(1, 8), seconds=0.01, repeats=1))
    monkeypatch.setattr(table, "TENSOR_SHAPE", (2, 64, 2))
    section = table.section(quick=True)
    assert "Built from 8 procedural clips" in section
    assert section.count("\n| ") >= 3
