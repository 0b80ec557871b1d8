"""Long rollouts in a process of their own: memory, file handles and threads stay level."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vaportok_rl.envs.table.building import TableBuilder, plan_table

_PROGRAM = """if True:
    import json, sys, threading
    from pathlib import Path
    import gymnasium, numpy as np, vaportok_rl

    def used():
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return [int(status["VmRSS"].split()[0]) // 1024, len(list(Path("/proc/self/fd").iterdir())),
                int(status["Threads"])]

    decisions, copies, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    envs = gymnasium.make_vec("vaportok/Taildrop-v0", copies, vectorization_mode="vector_entry_point", **options)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    found = []
    for step in range(decisions // copies):
        envs.step(envs.action_space.sample())
        if (step + 1) % (decisions // copies // 4) == 0:
            found.append(used())
    print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("decisions", "copies", "world"), [(100_000, 50, "table"), (3_000, 4, "nano")])
def test_nothing_grows(decisions: int, copies: int, world: str, tmp_path: Path) -> None:
    options = {"tokenizer": "nano"}
    if world == "table":
        TableBuilder(plan_table(tokenizer="nano", count=32, held_out=0, grid=32), tmp_path / "table").run()
        options = {"table": str(tmp_path / "table")}
    command = [sys.executable, "-c", _PROGRAM, str(decisions), str(copies), json.dumps(options)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{world}, at each quarter: MiB, file handles, threads: {found}")
    # The first quarter fills caches of a fixed size.
    (memory, handles, threads), (later, *rest) = found[1], found[-1]
    assert later < memory + 32
    assert rest == [handles, threads]
