from __future__ import annotations

import importlib
from pathlib import Path

import torch

from vaportok_rl.envs.table.building import TableBuilder, plan_table


def test_ppo_trains_the_taildrop_policy(tiny_world: str) -> None:
    example = importlib.import_module("sb3_ppo")
    agent = example.main(example.Arguments(steps=128, num_envs=8, tokenizer=tiny_world))
    assert agent.num_timesteps >= 128
    assert all(torch.isfinite(value).all() for value in agent.policy.parameters())


def test_random_walk_adds_up_the_same_reward_for_the_same_seed(tiny_world: str) -> None:
    example = importlib.import_module("random_walk")
    arguments = example.Arguments(tokenizer=tiny_world, seed=4)
    assert example.main(arguments) == example.main(arguments)


def test_the_custom_term_counts(tiny_world: str) -> None:
    figures = importlib.import_module("custom_reward").main(tiny_world)
    assert set(figures) == {"n=1", "n=4", "n=16"}


def test_the_curriculum_ends_with_fewer_tokens(tiny_world: str) -> None:
    figures = importlib.import_module("curriculum_weights").main(tiny_world)
    assert figures["after"] < figures["before"]


def test_the_learned_scalarisation_agrees_with_the_judge(tiny_world: str) -> None:
    figures = importlib.import_module("learned_scalarisation").main(tiny_world)
    assert figures["agreement"] > 0.75
    assert set(figures) == {"agreement", "n=1", "n=4", "n=16"}


def test_the_compiled_loop_learns_and_compiles_once(tiny_world: str, tmp_path: Path) -> None:
    plan = plan_table(tokenizer=tiny_world, count=80, held_out=8, grid=4, latents="summary")
    table = TableBuilder(plan, tmp_path / "table", measure_error=False).run().folder
    example = importlib.import_module("compiled_loop")
    torch._dynamo.reset()
    settings = {"table": str(table), "rounds": 12, "scenes": 8, "backend": "eager"}
    before, after = example.main(example.Arguments(**settings))
    assert after > before
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
