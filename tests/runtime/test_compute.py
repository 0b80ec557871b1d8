"""What a run costs: counted over interruptions and processes, and the energy by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaportok_rl.runtime import compute
from vaportok_rl.runtime.compute import COMPUTE_FILE, Compute, ComputeLog


def test_the_energy_by_hand() -> None:
    assert Compute(7200, 3600).watt_hours == pytest.approx(2 * compute.WATTS_PER_CORE)
    assert Compute(3600, 3600, 1800).watt_hours == pytest.approx(compute.WATTS_PER_CORE + compute.WATTS_PER_GPU / 2)
    told = Compute(7200, 5400).describe()
    assert all(part in told for part in ("2.00 processor hours", "1.50 h", "20 Wh", "10 W per busy core"))
    assert "GPU" in Compute(1, 1, 1).describe()


def test_time_is_counted_over_interruptions_and_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"busy": 100.0, "wall": 1000.0}
    monkeypatch.setattr(compute.os, "times", lambda: (now["busy"], 1.0, 2.0, 3.0, 9.0))
    monkeypatch.setattr(compute.time, "monotonic", lambda: now["wall"])

    def passes(busy: float, wall: float) -> None:
        now["busy"] += busy
        now["wall"] += wall

    log = ComputeLog(tmp_path)
    passes(5, 10)
    log.tick()
    assert not (tmp_path / COMPUTE_FILE).exists()
    passes(50, 51)
    log.tick()
    assert Compute.read(tmp_path) == Compute(55, 61)
    passes(1, 1)
    assert log.write() == Compute(56, 62)
    # A resumed run on two ranks with a graphics processor each.
    monkeypatch.setenv("WORLD_SIZE", "2")
    passes(1000, 1000)
    log = ComputeLog(tmp_path, "cuda:0")
    passes(10, 20)
    assert log.write() == Compute(56 + 20, 62 + 20, 40)
    content = json.loads((tmp_path / COMPUTE_FILE).read_text())
    assert content["assumed"] == {"watts_per_core": compute.WATTS_PER_CORE, "watts_per_gpu": compute.WATTS_PER_GPU}
    assert content["watt_hours_estimated"] == pytest.approx((76 * compute.WATTS_PER_CORE + 40 * 400) / 3600)
