"""Policies that need no training, by name."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vaportok_rl.agents import GRPO, LengthChoice, build_length_policy
from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.envs import Scene, TaildropProcess, TaildropVecEnv, shared_world


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, path_length=3)


@pytest.fixture(scope="module")
def scene(process: TaildropProcess) -> Scene:
    return process.sample_scene([np.random.default_rng(seed) for seed in range(4)])


def choose(spec: str, process: TaildropProcess, scene: Scene, seed: int = 0) -> LengthChoice:
    return build_length_policy(spec, process)(scene, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", ["random", "fixed:1", "fixed:16", "argmax", "oracle"])
def test_every_policy_gives_a_length_for_every_clip(process: TaildropProcess, scene: Scene, spec: str) -> None:
    choice = choose(spec, process, scene)
    assert choice.n_tokens.shape == choice.log_prob.shape == (4, 3)
    assert choice.n_tokens.dtype == torch.int64
    assert choice.log_prob.dtype == torch.float32
    assert choice.n_tokens.min() >= 1
    assert choice.n_tokens.max() <= 16
    process.engine.score(scene, choice.n_tokens[None])


def test_random_is_uniform_and_seeded(process: TaildropProcess, scene: Scene) -> None:
    first, again, other = (choose("random", process, scene, seed) for seed in (0, 0, 1))
    assert torch.equal(first.n_tokens, again.n_tokens)
    assert not torch.equal(first.n_tokens, other.n_tokens)
    assert first.log_prob.flatten().tolist() == pytest.approx([-math.log(16)] * 12)
    policy, generator = build_length_policy("random", process), torch.Generator().manual_seed(2)
    drawn = torch.cat([policy(scene, generator).n_tokens.flatten() for _ in range(800)])
    counts = torch.bincount(drawn, minlength=17)
    assert counts[0] == 0
    # 600 of each expected; a deviation of five standard errors would be 119.
    assert (counts[1:] - 600).abs().max() < 119


@pytest.mark.parametrize("n", [1, 7, 16])
def test_fixed(process: TaildropProcess, scene: Scene, n: int) -> None:
    choice = choose(f"fixed:{n}", process, scene)
    assert choice.n_tokens.unique().tolist() == [n]
    assert choice.log_prob.isnan().all()


def test_argmax_is_that_of_the_pretrained_module(process: TaildropProcess, scene: Scene, tiny_world: str) -> None:
    choice = choose("argmax", process, scene)
    for p in range(4):
        for j in range(3):
            probabilities = shared_world(tiny_world).taildrop(scene.latents[p, j][None]).probs[0]
            assert choice.n_tokens[p, j] == int(probabilities.argmax()) + 1
            assert choice.log_prob[p, j].exp().item() == pytest.approx(probabilities.max().item(), abs=1e-5)


def test_oracle(process: TaildropProcess, scene: Scene) -> None:
    choice = choose("oracle", process, scene)
    assert torch.equal(choice.n_tokens, oracle_lengths(process.engine.score_all(scene), process.reward))


def test_a_trained_agent_by_folder_and_by_file(
    process: TaildropProcess, scene: Scene, tiny_world: str, tmp_path: Path
) -> None:
    agent = GRPO(env=TaildropVecEnv(4, group_size=2, tokenizer=tiny_world, path_length=3))
    with torch.no_grad():
        agent.policy.action_net.bias.copy_(30.0 * (torch.arange(16) == 4))
    agent.save(tmp_path / "agent.zip")
    for spec in (tmp_path, tmp_path / "agent.zip"):
        assert choose(str(spec), process, scene).n_tokens.unique().tolist() == [5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fixed:0", "Expected a fixed length in 1…16, got 0"),
        ("fixed:17", "Expected a fixed length in 1…16, got 17"),
        ("fixed:-3", "Expected fixed:N with a whole number N, got 'fixed:-3'"),
        ("fixed:many", "Expected fixed:N with a whole number N, got 'fixed:many'"),
        ("fixed:", "Expected fixed:N with a whole number N, got 'fixed:'"),
        ("oracel", r"did you mean 'oracle'\?"),
        ("fixd:3", r"did you mean 'fixed'\?"),
        ("fixed", r"did you mean 'fixed'\?|write fixed:N"),
        ("/no/such/run", "check the path"),
    ],
)
def test_bad_names_are_refused(process: TaildropProcess, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_length_policy(spec, process)


def test_a_folder_without_an_agent(process: TaildropProcess, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected an agent at .*agent\.zip"):
        build_length_policy(str(tmp_path), process)
