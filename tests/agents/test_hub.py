"""Agents and tables to and from a stand-in of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from tests.hub_stand_in import StandIn
from vaportok_rl.agents import GRPO
from vaportok_rl.agents.agent_file import save_agent
from vaportok_rl.agents.hub import from_pretrained, push_to_hub
from vaportok_rl.cli.main import main
from vaportok_rl.envs import OutcomeTable, TaildropVecEnv


@pytest.fixture
def run(tiny_world: str, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    agent = GRPO(env=TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=2), seed=3)
    save_agent(
        agent, folder / "agent.safetensors", {"decisions": 64, "tokenizer": "tiny", "inputs": {"weights": "ab12"}}
    )
    (folder / "config.yaml").write_text("command: vaportok-rl train --decisions 64\nversions: {torch: '2'}\n")
    (folder / "table.md").write_text("| policy | saved |\n|---|---:|\n| trained | 3 % |\n")
    (folder / "reconstructions.mp4").write_bytes(b"video")
    (folder / "agent.zip").write_bytes(b"an archive, which can hold code")
    (folder / "events.out").write_bytes(b"logs")
    return folder


def test_an_agent_comes_back_as_it_went(run: Path, hub: StandIn) -> None:
    address = push_to_hub(run, "someone/agent", token="secret", private=True, commit_message="First")
    assert address.startswith(hub.address)
    assert hub.messages == ["First"]
    assert set(hub.tokens) == {"Bearer secret"}
    assert hub.asked[0].get("visibility") == "private" or hub.asked[0]["private"]  # as its versions ask
    files = hub.repos["model", "someone/agent"]
    assert sorted(files) == ["README.md", "agent.safetensors", "config.yaml", "reconstructions.mp4", "table.md"]
    there, here = from_pretrained("someone/agent"), from_pretrained(run)
    for name, value in here.policy.state_dict().items():
        assert torch.equal(there.policy.state_dict()[name], value)


def test_the_card_says_command_metrics_and_shows_the_video(run: Path, hub: StandIn) -> None:
    push_to_hub(run, "someone/agent")
    card = ModelCard(hub.repos["model", "someone/agent"]["README.md"].decode())
    assert card.data.library_name == "vaportok-rl"
    assert {"reinforcement-learning", "grpo"} <= set(card.data.tags)
    for words in (
        "vaportok-rl train --decisions 64",
        "| trained | 3 % |",
        f'src="{hub.address}/someone/agent/resolve/main/reconstructions.mp4"',
        "64 decisions",
        "| weights | `ab12` |",
        'from_pretrained("someone/agent")',
    ):
        assert words in card.text
    code = card.text.partition("```python")[2].partition("```")[0]
    compile(code, "card", "exec")


def test_the_command_brings_a_run_folder(
    run: Path, hub: StandIn, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["hub", "push", str(run), "someone/agent"])
    assert hub.address in capsys.readouterr().out
    out = tmp_path / "got"
    main(["hub", "get", "someone/agent", "--out", str(out)])
    assert (out / "agent.safetensors").read_bytes() == (run / "agent.safetensors").read_bytes()
    assert (out / "table.md").is_file()
    assert "got" in fails("hub", "get", "someone/agent", "--out", str(out))
    assert "someone/none" in fails("hub", "get", "someone/none", "--out", str(tmp_path / "none"))
    assert "agent.safetensors" in fails("hub", "push", str(tmp_path), "someone/agent")


def test_a_table_comes_back_and_a_damaged_one_is_refused(
    tiny_world: str, hub: StandIn, tmp_path: Path, fails: Callable[..., str]
) -> None:
    table = tmp_path / "table"
    build = ["--tokenizer", tiny_world, "--count", "3", "--held-out", "2", "--grid", "5", "--out", str(table)]
    main(["table", "build", *build])
    main(["hub", "push", str(table), "someone/table", "--message", "Five clips"])
    assert hub.messages == ["Five clips"]
    loaded = OutcomeTable.from_pretrained("someone/table")
    assert loaded.manifest == OutcomeTable.load(table).manifest
    assert torch.equal(loaded["test"].mse, OutcomeTable.load(table)["test"].mse)
    files = hub.repos["dataset", "someone/table"]
    card = files["README.md"].decode()
    assert (
        f"vaportok-rl table build --tokenizer {tiny_world} --clips procedural --count 3 --held-out 2 --grid 5" in card
    )
    main(["hub", "get", "someone/table", "--table", "--out", str(tmp_path / "got")])
    shard = next(name for name in files if name.startswith("test-"))
    files[shard] = files[shard][:-1] + bytes([files[shard][-1] ^ 1])
    assert shard in fails("hub", "get", "someone/table", "--table", "--out", str(tmp_path / "again"))
