"""Policies by name: the meaning of each spec, and messages about wrong ones."""

import sys
from pathlib import Path

import pytest
import torch

from vaportok_rl.agents import GRPO, build_length_policy
from vaportok_rl.agents.agent_file import AGENT_FILE, save_agent
from vaportok_rl.envs import Scene, TaildropProcess, TaildropVecEnv


def lengths(spec: str, process: TaildropProcess, scene: Scene) -> torch.Tensor:
    return build_length_policy(spec, process)(scene, torch.Generator().manual_seed(0)).n_tokens


def test_an_agent_of_grpo_by_folder_and_by_file(
    process: TaildropProcess, scene: Scene, tiny_world: str, tmp_path: Path
) -> None:
    agent = GRPO(env=TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=3))
    with torch.no_grad():
        agent.policy.action_net.bias.copy_(30.0 * (torch.arange(16) == 4))
    file = save_agent(agent, tmp_path / AGENT_FILE, {})
    for spec in (tmp_path, file):
        assert lengths(str(spec), process, scene).unique().tolist() == [5]


def test_a_function_by_name(
    process: TaildropProcess, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module with the name of a policy is still a module.
    (tmp_path / "random_lengths.py").write_text(
        "import torch\ndef longest(scene, generator):\n    return torch.full(scene.shape, scene.tokens)\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "random_lengths", raising=False)
    assert lengths("random_lengths:longest", process, scene).unique().tolist() == [16]
    with pytest.raises(ValueError, match=r"importable policy at 'random_lengths:shortest', got AttributeError"):
        build_length_policy("random_lengths:shortest", process)
    with pytest.raises(ValueError, match=r"Expected a function .* 'random_lengths:number', got int"):
        build_length_policy("random_lengths:number", process)
    with pytest.raises(ValueError, match=r"importable policy at 'no.such_module:x'.*PYTHONPATH"):
        build_length_policy("no.such_module:x", process)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fixed:0", "Expected a fixed length in 1…16, got 0"),
        ("fixed:17", "Expected a fixed length in 1…16, got 17"),
        ("fixed:-3", "Expected fixed:N with a whole number N, got 'fixed:-3'"),
        ("fixed:many", "Expected fixed:N with a whole number N, got 'fixed:many'"),
        ("fixed:", "Expected fixed:N with a whole number N, got 'fixed:'"),
        ("budget:0.5", "Expected budget:N with a whole number N, got 'budget:0.5'"),
        ("budget:17", "Expected a mean length in 1…16, got 17"),
        ("lagrangian:", "Expected lagrangian:N with a whole number N, got 'lagrangian:'"),
        ("lagrange:4", r"did you mean 'lagrangian'\?"),
        ("loss-proportionl", r"did you mean 'loss-proportional'\?"),
        ("threshold:low", "Expected threshold:X with a mean squared error X, got 'threshold:low'"),
        ("threshold:", "Expected threshold:X with a mean squared error X"),
        ("threshold:-1", "Expected a finite error threshold ≥ 0, got -1.0"),
        ("threshold:nan", "Expected a finite error threshold ≥ 0, got nan"),
        ("threshold:0.1:fast", "threshold:X:binary, got 'threshold:0.1:fast'"),
        ("oracel", r"did you mean 'oracle'\?"),
        ("best_fixed", r"did you mean 'best-fixed'\?"),
        ("complexty", r"did you mean 'complexity'\?"),
        ("fixd:3", r"did you mean 'fixed'\?"),
        ("fixed", r"did you mean 'fixed'\?"),
        ("/no/such/run", "check the path"),
    ],
)
def test_bad_names_are_refused(process: TaildropProcess, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_length_policy(spec, process)


def test_a_path_without_an_agent(process: TaildropProcess, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for spec in (str(tmp_path), f"ppo:{tmp_path}", f"ppo:{tmp_path / 'no'}"):
        with pytest.raises(FileNotFoundError, match=r"Expected an agent at "):
            build_length_policy(spec, process)
    for spec in (str(tmp_path / "notes.txt"), f"dqn:{tmp_path / 'notes.txt'}"):
        with pytest.raises(ValueError, match=r"Expected an agent that vaportok-rl saved at"):
            build_length_policy(spec, process)
