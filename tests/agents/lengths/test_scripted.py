"""Policies that need no training, by name."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vaportok_rl.agents import LengthChoice, build_length_policy
from vaportok_rl.agents.oracle import oracle_lengths
from vaportok_rl.envs import Scene, TaildropProcess, shared_world
from vaportok_rl.tokenizer import VaporTok

LENGTHS = range(1, 17)
SPECS = ["random", "fixed:1", "fixed:16", "argmax", "sample", "complexity", "threshold:0.1", "threshold:0.1:binary"]
SPECS += ["oracle"]


def choose(spec: str, process: TaildropProcess, scene: Scene, seed: int = 0) -> LengthChoice:
    return build_length_policy(spec, process)(scene, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", SPECS)
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


def test_sample_draws_from_the_pretrained_module(process: TaildropProcess, scene: Scene, tiny_world: str) -> None:
    probabilities = shared_world(tiny_world).taildrop(scene.latents.flatten(0, 1)).probs
    policy, generator = build_length_policy("sample", process), torch.Generator().manual_seed(0)
    counts = torch.zeros(16)
    for _ in range(400):
        choice = policy(scene, generator)
        counts += torch.bincount(choice.n_tokens.flatten() - 1, minlength=16)
    wanted = 400 * probabilities.sum(0)
    assert ((counts - wanted).abs() < 5 * wanted.sqrt() + 1).all()
    told = probabilities.gather(1, choice.n_tokens.flatten()[:, None] - 1).log().view(4, 3)
    torch.testing.assert_close(choice.log_prob, told)


def test_oracle(process: TaildropProcess, scene: Scene) -> None:
    choice = choose("oracle", process, scene)
    assert torch.equal(choice.n_tokens, oracle_lengths(process.engine.score_all(scene), process.reward))


def test_a_naive_tokenizer_keeps_all_tokens(tiny_world: str, tmp_path: Path) -> None:
    model = VaporTok.from_pretrained(tiny_world)
    taildrop = dataclasses.replace(model.config.taildrop, strategy="naive")
    naive = VaporTok(dataclasses.replace(model.config, taildrop=taildrop))
    naive.load_state_dict(model.state_dict())
    process = TaildropProcess(tokenizer=str(naive.save_pretrained(tmp_path / "naive")), path_length=3)
    choice = choose("argmax", process, process.sample_scene([np.random.default_rng(0)]))
    assert choice.n_tokens.unique().tolist() == [16]
    assert choice.log_prob.isnan().all()


def test_complexity_is_the_mean_of_the_gaussian(process: TaildropProcess, scene: Scene) -> None:
    choice = choose("complexity", process, scene)
    scale = process.engine.world.complexity_scale
    low, high = scale.config.mean_range
    for p in range(4):
        for j in range(3):
            mean = 16 * (low + (high - low) * scale.score(scene.complexity[p, j]).item())
            assert abs(choice.n_tokens[p, j].item() - min(max(mean, 1), 16)) <= 0.5 + 1e-4
            weights = [math.exp(-0.5 * ((n - mean) / (scale.config.deviation * 16)) ** 2) for n in range(1, 17)]
            assert choice.log_prob[p, j].exp().item() == pytest.approx(max(weights) / sum(weights), rel=1e-4)


def errors(process: TaildropProcess, scene: Scene) -> np.ndarray:
    """Mean squared error by length, straight from the decoder: ``[K, P, L]``."""
    world, clips = process.engine.world, scene.clips.flatten(0, 1).double() / 255
    rows = [(world.decode(scene.codes.flatten(0, 1), n).double() - clips).square().flatten(1).mean(1) for n in LENGTHS]
    return torch.stack(rows).view(16, *scene.shape).numpy()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_threshold_is_the_shortest_length_that_meets_it(process: TaildropProcess, scene: Scene, share: float) -> None:
    mse = errors(process, scene)
    threshold = float(np.quantile(mse, share)) + 1e-7
    expected = np.where((mse <= threshold).any(0), (mse <= threshold).argmax(0) + 1, 16)
    for spec in (f"threshold:{threshold}", f"threshold:{threshold}:linear"):
        assert np.array_equal(choose(spec, process, scene).n_tokens.numpy(), expected)
    # Halving supposes that errors fall with every token, which those of a world with random weights need not do.
    found = choose(f"threshold:{threshold}:binary", process, scene).n_tokens.numpy()
    assert (found >= expected).all()
    assert all(n == 16 or mse[n - 1][at] <= threshold for at, n in np.ndenumerate(found))


def test_a_threshold_never_met_keeps_everything(process: TaildropProcess, scene: Scene) -> None:
    for spec in ("threshold:0", "threshold:0:binary"):
        assert choose(spec, process, scene).n_tokens.unique().tolist() == [16]


REWARD = {"weights": {"efficiency": 3}, "n_threshold": 9, "threshold_unit": "tokens"}


def test_best_fixed_is_found_on_training_clips(tiny_world: str, scene: Scene) -> None:
    # Constants under which the best of all lengths is neither end of the range.
    settings = {"tokenizer": tiny_world, "path_length": 3, "reward": REWARD}
    for limits in ({}, {"min_tokens": 2, "token_budget": 15}):
        process = TaildropProcess(**settings, **limits, split="test")
        training = TaildropProcess(**settings, split="train")
        rewards = np.zeros(16)
        for rows in training.held_out(8, seed=0):
            batch = training.source.batch(rows)
            seen = training.engine.encode(batch.clips[None])
            for n in LENGTHS:
                kept = process.token_range.clip_paths(torch.full((1, 1, 3), n))
                rewards[n - 1] += training.reward(training.engine.score(seen, kept)).total.item()
        n_tokens = choose("best-fixed", process, scene).n_tokens.unique()
        assert n_tokens.tolist() == [int(rewards.argmax()) + 1]
