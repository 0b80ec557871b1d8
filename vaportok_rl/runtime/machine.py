"""Describes the machine of a run, and warns when a run is resumed on another.

Floating-point sums depend on the order of their terms, which threads and processor decide. Equal seeds give equal bits
on equal machines only.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vaportok_rl.runtime.messages import warn_user


def processor_name() -> str:
    """The processor's model name, or its architecture if the system does not give the name."""
    listed = Path("/proc/cpuinfo")
    names = (
        [line for line in listed.read_text().splitlines() if line.startswith("model name")] if listed.exists() else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def user_cache() -> Path:
    """Folder of what is kept between runs on this machine: ``vaportok_rl`` in ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaportok_rl"


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name, checked to work.

    Raises:
        ValueError: there is no such device, or torch was built without support for it.
    """
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"Expected a device that torch can use here, got {device!r} ({said}); pass device='cpu', or install the "
            "driver and torch's build for this device."
        ) from error


def describe_machine(device: str | torch.device = "cpu") -> dict[str, str | int]:
    """What affects the last bits of a run besides its seed, as plain data for the run's record.

    Args:
        device: where the run computes.

    Returns:
        ``processor``, ``instructions`` (``AVX2``, …), ``threads``, ``torch``, and ``gpu`` on a CUDA device.
    """
    found: dict[str, str | int] = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def warn_if_other_machine(begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warns of the differences between the machine a run began on and this one.

    Args:
        begun: `describe_machine` at the start of the run.
        now: of this process.

    Warns:
        UserWarning: something differs, so the result will not equal an uninterrupted run to the bit.
    """
    changed = [f"{name}: {begun.get(name)} then, {now.get(name)} now" for name in now if begun.get(name) != now[name]]
    if changed:
        warn_user(
            f"The run began on another machine ({'; '.join(changed)}); it continues, but equals an uninterrupted run "
            "bitwise only with the same processor and threads (set OMP_NUM_THREADS)."
        )
