from __future__ import annotations

import io

from rich.console import Console

from vaportok_rl.agents import HeldOut
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.experiments.tables import comparison_tables


def test_the_tables_fit_a_terminal_and_rank_by_reward(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    held_out = HeldOut(process, scenes=2)
    comparison = held_out.compare({"everything": held_out.scene.ids * 0 + 16})
    console = Console(width=80, file=io.StringIO())
    console.print(*comparison_tables(comparison, "title"))
    quality, terms = console.file.getvalue().split("reward terms")
    assert "…" not in quality + terms
    order = [line.split("│")[1].strip() for line in quality.splitlines() if line.startswith("│")]
    assert order[-1] == "oracle"
    assert set(order) == {"everything", "best fixed", "oracle"}
    for term in process.reward.names:
        assert term in terms
    fixed = next(line for line in quality.splitlines() if "best fixed" in line)
    assert "–" in fixed
    assert "0.0 %" in fixed
