"""The page of three clips of the tiny world and two agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from vaportok_rl.agents import GRPO
from vaportok_rl.agents.agent_file import save_agent
from vaportok_rl.cli.main import main
from vaportok_rl.envs import TaildropProcess, TaildropVecEnv

COUNT = 3


class Page(NamedTuple):
    file: Path
    data: dict[str, Any]
    process: TaildropProcess


def read_data(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        file.read_text().partition('<script id="data" type="application/json">')[2].partition("</script>")[0]
    )
    return found


@pytest.fixture(scope="session")
def page(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("explorer")
    env = TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=COUNT)
    for name in ("one", "two"):
        agent = GRPO(env=env, seed=0)
        with torch.no_grad():
            agent.policy.action_net.bias.copy_(torch.randn(16, generator=torch.Generator().manual_seed(ord(name[0]))))
        (folder / name).mkdir()
        save_agent(agent, folder / name / "agent.safetensors", {})
    file = folder / "explorer.html"
    agents = [str(folder / "one"), str(folder / "two")]
    main(["explore", "--agent", *agents, "--tokenizer", tiny_world, "--count", str(COUNT), "--out", str(file)])
    process = TaildropProcess(tokenizer=tiny_world, path_length=COUNT, split="test")
    return Page(file, read_data(file), process)
