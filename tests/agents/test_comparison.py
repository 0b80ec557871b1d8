"""Policies on the same held-out scenes: metrics by definition, and the scale from best fixed length to oracle."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vaportok_rl.agents import Comparison, HeldOut
from vaportok_rl.agents.comparison import Bounds
from vaportok_rl.envs import TaildropProcess


@pytest.fixture(scope="module")
def held_out(tiny_world: str) -> HeldOut:
    return HeldOut(TaildropProcess(tokenizer=tiny_world, path_length=3, split="test"), scenes=5, seed=1)


@pytest.fixture(scope="module")
def lengths() -> torch.Tensor:
    return torch.randint(1, 17, (5, 3), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def comparison(held_out: HeldOut, lengths: torch.Tensor) -> Comparison:
    return held_out.compare({"mine": lengths, "short": torch.full((5, 3), 2)})


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 12), st.integers(0, 5))
def test_held_out_rows(clips: int, length: int, scenes: int, seed: int) -> None:
    if length > clips:
        return
    process = SimpleNamespace(source=range(clips), path_length=length, _starts=None)
    rows = TaildropProcess.held_out(process, scenes, seed)
    assert rows == TaildropProcess.held_out(process, scenes, seed)
    assert len(rows) == min(scenes, clips // length)
    flat = [row for scene in rows for row in scene]
    assert len(set(flat)) == len(flat) == len(rows) * length
    assert all(0 <= row < clips for row in flat)


def test_every_length_is_what_the_engine_scores(held_out: HeldOut, lengths: torch.Tensor) -> None:
    seen = []
    again = HeldOut(held_out.process, scenes=5, seed=1, on_scene=lambda: seen.append(1))
    assert len(seen) == 5
    assert torch.equal(again.every.mse, held_out.every.mse)
    assert held_out.every.mse.shape == (16, 5, 3)
    outcome = held_out.process.engine.score(held_out.scene, lengths[None])
    score = held_out.evaluate(lengths)
    assert torch.allclose(score.outcome.mse, outcome.mse, atol=1e-7)
    assert torch.allclose(score.outcome.accuracy, outcome.accuracy, atol=1e-7)
    assert torch.allclose(score.rewards.total, held_out.process.reward(outcome).total, atol=1e-5)
    total = held_out.process.reward(outcome).total.mean().item()
    assert held_out.evaluate(lengths).reward == pytest.approx(total, abs=1e-5)


def test_terms_that_read_codes_and_measures(tiny_world: str, lengths: torch.Tensor) -> None:
    reward = {"weights": {"codebook_usage": 1.0, "prior_bits": 0.5}}
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test", reward=reward)
    held_out = HeldOut(process, scenes=5, seed=1)
    scored = process.reward(process.engine.score(held_out.scene, lengths[None]))
    looked_up = held_out.evaluate(lengths).rewards
    assert set(looked_up.terms) >= {"codebook_usage", "prior_bits"}
    for name, value in scored.terms.items():
        assert torch.allclose(looked_up.terms[name], value, atol=1e-5), name


def test_figures(held_out: HeldOut, comparison: Comparison, lengths: torch.Tensor) -> None:
    figures = comparison.results()["mine"]
    outcome = held_out.process.engine.score(held_out.scene, lengths[None])
    mse = outcome.mse.double().numpy()
    assert figures["tokens"] == pytest.approx(lengths.double().mean().item())
    assert figures["mse"] == pytest.approx(mse.mean(), rel=1e-5)
    assert figures["psnr"] == pytest.approx((-10 * np.log10(mse)).mean(), rel=1e-5)
    assert figures["accuracy"] == pytest.approx(outcome.accuracy.mean().item(), abs=1e-6)
    assert figures["reward_efficiency"] == pytest.approx(1 - lengths.double().mean().item() / 16, abs=1e-6)
    spread = (lengths.double() / 16).numpy().std(axis=1).clip(max=0.1).mean()
    assert figures["reward_diversity"] == pytest.approx(spread, abs=1e-6)
    parts = [value for name, value in figures.items() if name.startswith("reward_")]
    assert figures["reward"] == pytest.approx(sum(parts), abs=1e-5)  # all weights are 1
    score = held_out.process.engine.world.complexity_scale.score(held_out.scene.complexity)
    expected = stats.spearmanr(lengths.flatten().numpy(), score.flatten().numpy()).statistic
    assert figures["spearman_complexity"] == pytest.approx(expected)


def test_the_scale(comparison: Comparison) -> None:
    best_fixed, oracle = comparison.reward("best_fixed"), comparison.reward("oracle")
    worst = comparison.worst.rewards.total.mean().item()
    assert worst < best_fixed < oracle
    assert comparison.headroom == pytest.approx(oracle - best_fixed)
    assert comparison.headroom_share == pytest.approx((oracle - best_fixed) / (oracle - worst))
    assert comparison.gap_closed("best_fixed") == 0
    assert comparison.gap_closed("oracle") == 1
    assert comparison.percentile("oracle") == 1
    for name in ("mine", "short"):
        reward = comparison.reward(name)
        assert worst <= reward <= oracle
        assert comparison.gap_closed(name) == pytest.approx((reward - best_fixed) / (oracle - best_fixed))
        assert comparison.percentile(name) == pytest.approx((reward - worst) / (oracle - worst))


def test_best_fixed_is_the_best_of_all_fixed_lengths(held_out: HeldOut, comparison: Comparison) -> None:
    rewards = [held_out.evaluate(torch.full((5, 3), n)).rewards.total.mean().item() for n in range(1, 17)]
    assert comparison.reward("best_fixed") == pytest.approx(max(rewards))
    assert comparison.scores["best_fixed"].n_tokens.unique().tolist() == [int(np.argmax(rewards)) + 1]


def test_bounds_are_searched_once_for_each_reward(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test")
    held_out = HeldOut(process, scenes=3)
    before = held_out.bounds
    with monkeypatch.context() as patched:
        patched.setattr("vaportok_rl.agents.comparison.oracle_lengths", None)
        assert held_out.bounds is before
        assert held_out.compare({}).reward("oracle") == before.oracle.reward
        assert held_out.compare({"short": torch.full((3, 3), 2)}).worst.reward == before.worst.reward
    process.reward = process.reward.with_weights({"diversity": 5.0})
    assert held_out.bounds.oracle.reward > before.oracle.reward


@pytest.mark.parametrize("limit", [{"min_tokens": 3, "max_tokens": 9}, {"token_budget": 14}])
def test_within_what_is_allowed(tiny_world: str, limit: dict[str, int]) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, split="test", **limit)
    held_out = HeldOut(process, scenes=4)
    generator = torch.Generator().manual_seed(0)
    wild = {str(n): torch.randint(1, 17, (4, 3), generator=generator) for n in range(30)}
    comparison = held_out.compare(wild)
    best, worst = comparison.scores["oracle"].rewards.total, comparison.worst.rewards.total
    for score in comparison.scores.values():
        assert torch.equal(process.token_range.clip_paths(score.n_tokens), score.n_tokens)
        assert (score.rewards.total <= best + 1e-6).all()
        assert (score.rewards.total >= worst - 1e-6).all()


def test_a_policy_that_beats_the_search_raises_the_oracle(held_out: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    found = held_out.bounds
    fixed = held_out.evaluate(torch.full((5, 3), 16))
    poor = Bounds(best_fixed=found.best_fixed, oracle=fixed, worst=fixed)
    monkeypatch.setattr(HeldOut, "bounds", property(lambda _: poor))
    comparison = held_out.compare({"good": found.oracle.n_tokens, "bad": found.worst.n_tokens})
    assert (comparison.scores["oracle"].rewards.total >= found.oracle.rewards.total - 1e-6).all()
    assert (comparison.worst.rewards.total <= found.worst.rewards.total + 1e-6).all()


def test_allocation(held_out: HeldOut, comparison: Comparison, lengths: torch.Tensor) -> None:
    found = comparison.results()["mine"]
    flat = lengths.flatten().numpy()
    assert found["median_tokens"] == np.median(flat)
    assert found["share_smallest"] == pytest.approx((flat == 1).mean())
    assert found["share_largest"] == pytest.approx((flat == 16).mean())
    for column, name in enumerate(("spearman_spatial", "spearman_temporal")):
        complexity = held_out.scene.complexity[..., column].flatten().numpy()
        assert found[name] == pytest.approx(stats.spearmanr(flat, complexity).statistic)
    oracle = comparison.scores["oracle"].n_tokens.numpy()
    assert comparison.oracle_length_iqr == np.subtract(*np.percentile(oracle, [75, 25]))


def test_at_equal_tokens(held_out: HeldOut, comparison: Comparison) -> None:
    # A fixed length is its own comparison; the clip-by-clip minimum of error + price · tokens saves all there is.
    assert comparison.savings("short") == pytest.approx({"saved": 0, "saved_share": 0}, abs=1e-9)
    mse = held_out.every.mse.flatten(1).double().numpy()
    for price in (1e-6, 1e-5, 1e-4):
        best = (mse + price * np.arange(16)[:, None]).argmin(0) + 1
        found = held_out.compare({"best": torch.from_numpy(best).view(5, 3)}).savings("best")
        assert found["saved_share"] == pytest.approx(1, abs=1e-4)
        fixed = np.interp(best.mean(), np.arange(1, 17), mse.mean(1))
        left = np.take_along_axis(mse, best[None] - 1, 0).mean()
        assert found["saved"] == pytest.approx((fixed - left) / fixed, abs=1e-6)


def test_no_headroom_is_not_a_number(tiny_world: str) -> None:
    # Only efficiency pays: one token for every clip is the oracle and the best fixed length at once.
    weights = {"efficiency": 1, "penalty": 0, "diversity": 0, "reconstruction": 0, "generation": 0}
    process = TaildropProcess(tokenizer=tiny_world, path_length=2, split="test", reward={"weights": weights})
    comparison = HeldOut(process, scenes=2).compare({})
    assert comparison.headroom == 0
    assert comparison.headroom_share == 0
    assert math.isnan(comparison.gap_closed("oracle"))
    assert math.isnan(comparison.spearman["best_fixed"])
    assert comparison.percentile("best_fixed") == 1
