"""The accelerator's script, tried on the CPU: it checks, measures, trains, and reports a wrong device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import accelerator
from benchmarks.accelerator import FAILED, Arguments, main


def test_the_script_writes_its_page(tiny_world: str, tmp_path: Path) -> None:
    out = tmp_path / "accelerator"
    main(Arguments(device="cpu", tiny=True, tokenizer=tiny_world, out=out))
    page = (out / "accelerator.md").read_text()
    assert page.count("| yes |") == 5
    assert FAILED not in page
    for words in ("## Engine against the literal method", "rounds/s", "peak memory", "TFLOP/s", "| trained |"):
        assert words in page
    assert (out / "train" / "agent.safetensors").is_file()


def test_a_device_that_computes_something_else_is_reported(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "literal_scores", lambda world, clips, n: (torch.ones(n.shape), None))
    monkeypatch.setattr(accelerator, "PARTS", (accelerator.checks, accelerator.rounds))
    monkeypatch.setattr(accelerator, "LAST_BEGIN", 0.0)
    arguments = Arguments(device="cpu", tiny=True, tokenizer=tiny_world, out=tmp_path / "out")
    with pytest.raises(SystemExit, match="cpu"):
        main(arguments)
    assert f"| {FAILED} |" in (arguments.out / "accelerator.md").read_text()
