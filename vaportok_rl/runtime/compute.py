"""What a run costs: processor time, wall-clock time and an estimate of the energy, in its folder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.whole_writes import whole_write

COMPUTE_FILE = "compute.json"
WATTS_PER_CORE, WATTS_PER_GPU = 10.0, 400.0
"""Assumed power of a busy core with its share of memory and board, and of a busy graphics processor; nothing is
measured."""
# Seconds between writes: what a kill may lose.
_EVERY = 60.0


@dataclass(frozen=True)
class Compute:
    """What a run cost, over all processes and interruptions.

    Attributes:
        processor_seconds: of all cores together.
        wall_seconds: of the clock.
        gpu_seconds: time of graphics processors, taken as busy throughout.
    """

    processor_seconds: float = 0.0
    wall_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Compute) -> Compute:
        return Compute(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(Compute)))

    @property
    def watt_hours(self) -> float:
        """The estimated energy."""
        return (WATTS_PER_CORE * self.processor_seconds + WATTS_PER_GPU * self.gpu_seconds) / 3600

    def describe(self) -> str:
        """One line: hours, energy and its assumption."""
        on_gpu = f", {self.gpu_seconds / 3600:.2f} h of graphics processors" if self.gpu_seconds else ""
        assumed = f"{WATTS_PER_CORE:g} W per busy core" + (f", {WATTS_PER_GPU:g} W per GPU" if self.gpu_seconds else "")
        return (
            f"{self.processor_seconds / 3600:.2f} processor hours{on_gpu} in {self.wall_seconds / 3600:.2f} h; about "
            f"{self.watt_hours:.3g} Wh if {assumed}"
        )

    @classmethod
    def read(cls, folder: Path) -> Compute:
        """What a run folder records; nothing if it has no record."""
        file = folder / COMPUTE_FILE
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return cls(**{part.name: content.get(part.name, 0.0) for part in fields(Compute)})


@dataclass
class ComputeLog:
    """Counts from its making on, added to what the run's folder records already.

    The ranks of a run do equal work, so the main one counts for all.

    Args:
        folder: of the run.
        device: where it computes.
    """

    folder: Path
    device: str = "cpu"
    _before: Compute = field(init=False)
    _begun: Compute = field(init=False)
    _written: float = field(init=False)

    def __post_init__(self) -> None:
        self._before, self._begun = Compute.read(self.folder), self._now()
        self._written = time.monotonic()

    def _now(self) -> Compute:
        ranks, wall = Processes.launched().count, time.monotonic()
        busy = sum(os.times()[:4])  # own and of ended child processes, user and system
        return Compute(ranks * busy, wall, ranks * wall * self.device.startswith("cuda"))

    def tick(self) -> None:
        """Writes the record if the last one is a minute old."""
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> Compute:
        """Writes the record; returns what the run cost so far."""
        now = asdict(self._now())
        spent = Compute(**{name: now[name] - value for name, value in asdict(self._begun).items()})
        found = self._before + spent
        assumed = {"watts_per_core": WATTS_PER_CORE, "watts_per_gpu": WATTS_PER_GPU}
        content = {**asdict(found), "watt_hours_estimated": found.watt_hours, "assumed": assumed}
        with whole_write(self.folder / COMPUTE_FILE) as scratch:
            scratch.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        self._written = time.monotonic()
        return found
