"""Reward terms against hand-computed numbers and slow loops; weights; custom terms; refusals."""

import copy
import json
import math
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.envs import DEFAULT_WEIGHTS, Outcome, Scene, VaporReward
from vaportok_rl.envs.rewards import build_reward, diversity, efficiency, generation, reconstruction
from vaportok_rl.envs.rewards.contract import load_term
from vaportok_rl.envs.rewards.terms import FURTHER_TERMS
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.config import ComplexityConfig

TOKENS = 16


def bare_scene(paths: int, length: int, tokens: int = TOKENS) -> Scene:
    prior_mean = torch.full((paths, length), 8.0)
    return Scene.bare(torch.zeros(paths, length, tokens, dtype=torch.int64), torch.zeros(paths, length, 2), prior_mean)


def outcome_of(lengths: Any, mse: Any = None, accuracy: Any = None) -> Outcome:
    """An outcome of the given lengths ``[G, P, L]``; error and accuracy are zero unless given."""
    n_tokens = torch.tensor(lengths)
    zeros = torch.zeros(n_tokens.shape)
    return Outcome(
        bare_scene(*n_tokens.shape[1:]),
        n_tokens,
        zeros if mse is None else torch.tensor(mse),
        zeros if accuracy is None else torch.tensor(accuracy),
    )


def random_outcome(seed: int, group: int = 3, paths: int = 2, length: int = 4) -> Outcome:
    rng = np.random.default_rng(seed)
    shape = (group, paths, length)
    return outcome_of(
        rng.integers(1, TOKENS + 1, shape),
        rng.random(shape, dtype=np.float32),
        rng.random(shape, dtype=np.float32),
    )


def test_efficiency_is_the_share_saved() -> None:
    assert efficiency(outcome_of([[[1, 4, 16]]])).tolist() == [[[0.9375, 0.75, 0.0]]]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
@pytest.mark.parametrize(("threshold", "unit"), [(6, "tokens"), (0.375, "K"), (0.75, "prior"), (0.4, "K")])
def test_penalty_is_equation_10(power: float, threshold: float, unit: Any) -> None:
    start = {"tokens": threshold, "K": threshold * TOKENS, "prior": threshold * 8}[unit]
    outcome = outcome_of([[list(range(1, TOKENS + 1))]])
    for reduction, factor in (("mean", 1), ("sum", TOKENS)):
        reward = VaporReward(
            n_threshold=threshold, threshold_unit=unit, penalty_power=power, penalty_reduction=reduction
        )
        value = reward(outcome).raw["penalty"][0, 0]
        for n in range(1, TOKENS + 1):
            expected = 0.0 if n >= start else -factor * (((start - n) / start) ** power)
            assert value[n - 1].item() == pytest.approx(expected, abs=1e-5)
        assert reward(outcome).terms["penalty"].item() == pytest.approx(value.mean().item(), abs=1e-6)
        # Plain zeros, because a logged "-0.0" would look odd.
        assert not torch.signbit(value[math.ceil(start) - 1 :]).any()


def test_penalty_starts_at_an_eighth_of_k_by_default() -> None:
    terms = VaporReward()(outcome_of([[[1, 2, 3]]])).raw
    assert terms["penalty"].tolist() == [[[-0.25, 0.0, 0.0]]]


def test_the_threshold_follows_each_clips_prior() -> None:
    scale = ComplexityScale(ComplexityConfig(), 64)
    complexity = torch.tensor([[[1.0, 0.5], [7.0, 40.0]]])
    scene = Scene.bare(torch.zeros(1, 2, 64, dtype=torch.int64), complexity, scale.prior_mean(complexity))
    outcome = replace(outcome_of([[[10, 10]]]), scene=scene)
    likeliest = scale.gaussian_prior(complexity).argmax(-1) + 1
    assert outcome.prior_mean[0, 1] - outcome.prior_mean[0, 0] > 10
    assert torch.equal(outcome.prior_mean.round().long(), likeliest)
    expected = [-(max(0.0, (0.7 * mean - 10) / (0.7 * mean)) ** 2) for mean in outcome.prior_mean[0].tolist()]
    assert VaporReward(preset="paper")(outcome).raw["penalty"][0, 0].tolist() == pytest.approx(expected)


@given(st.lists(st.integers(1, TOKENS), min_size=1, max_size=9), st.floats(0.01, 0.5), st.sampled_from([0.5, 1, 2]))
def test_diversity_is_the_capped_population_deviation(lengths: list[int], cap: float, scale: float) -> None:
    mean = sum(lengths) / len(lengths)
    deviation = math.sqrt(sum((n - mean) ** 2 for n in lengths) / len(lengths)) / TOKENS
    value = diversity(outcome_of([[lengths]]), diversity_cap=cap, diversity_scale=scale)
    assert value.shape == (1, 1)
    assert value.item() == pytest.approx(scale * min(deviation, cap), abs=1e-6)


def test_reconstruction_and_generation() -> None:
    outcome = outcome_of([[[1, 2]]], mse=[[[0.25, 0.5]]], accuracy=[[[0.0, 0.75]]])
    assert reconstruction(outcome, scale=4.0).tolist() == [[[-1.0, -2.0]]]
    assert generation(outcome, generation_scale=0.5).tolist() == [[[0.0, 0.375]]]


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.floats(-3, 3, width=32), min_size=5, max_size=5),
    st.integers(1, 5),
)
def test_path_reward_is_the_weighted_sum_of_means(seed: int, weights: list[float], length: int) -> None:
    outcome = random_outcome(seed, length=length)
    named = dict(zip(DEFAULT_WEIGHTS, weights, strict=True))
    result = VaporReward(named, n_threshold=5, threshold_unit="tokens", penalty_power=1.5, scale=3.0)(outcome)
    assert list(result.terms) == list(result.raw) == list(DEFAULT_WEIGHTS)
    group, paths = result.total.shape
    for g in range(group):
        for p in range(paths):
            n = outcome.n_tokens[g, p].tolist()
            shares = [value / TOKENS for value in n]
            expected = {
                "efficiency": float(np.mean([1 - share for share in shares])),
                "penalty": float(np.mean([-((max(0, 5 - value) / 5) ** 1.5) for value in n])),
                "diversity": min(0.1, float(np.std(shares))),
                "reconstruction": -3.0 * float(outcome.mse[g, p].double().mean()),
                "generation": float(outcome.accuracy[g, p].double().mean()),
            }
            for name, value in expected.items():
                assert result.terms[name][g, p].item() == pytest.approx(value, abs=1e-5)
            total = sum(named[name] * value for name, value in expected.items())
            assert result.total[g, p].item() == pytest.approx(total, abs=1e-4)
    assert result.per_decision.shape == result.by_clip.shape == outcome.n_tokens.shape
    assert torch.allclose(result.per_decision.sum(-1), result.total, atol=1e-5)
    assert torch.allclose(result.by_clip.mean(-1), result.total, atol=1e-5)


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(-3, 3, width=32), min_size=8, max_size=8),
    st.integers(1, 12),
    st.integers(1, TOKENS * 12),
)
def test_payments_add_up_to_every_other_view(seed: int, weights: list[float], length: int, budget: int) -> None:
    outcome = random_outcome(seed, length=length)
    names = [*DEFAULT_WEIGHTS, "log_mse", "budget_overrun", "worst"]
    reward = VaporReward(
        dict(zip(names, weights, strict=True)),
        terms={"worst": lambda outcome: outcome.psnr.amin(-1)},
        scale=1.0,
        token_budget=budget,
    )
    result = reward(outcome)
    assert list(result.raw) == names
    assert result.payments.shape == (8, 3, 2, length)
    for name, paid in zip(names, result.payments, strict=True):
        assert torch.allclose(paid.sum(-1), result.terms[name], atol=1e-6)
        if result.raw[name].dim() == 2:
            assert not paid[..., :-1].any()
            assert torch.equal(paid[..., -1], result.raw[name])
        else:
            assert torch.equal(paid, result.raw[name] / length)
    # As in the multi-objective environment: in float64, from the vector.
    dot = np.einsum("t,tgpl->gpl", np.array(weights), result.payments.double().numpy())
    assert np.allclose(result.per_decision.numpy(), dot, atol=2e-6, rtol=0)
    assert np.allclose(dot.sum(-1), result.total.numpy(), atol=2e-5, rtol=0)


def test_a_reward_never_changes() -> None:
    reward, outcome = VaporReward(), random_outcome(1)
    result = reward(outcome)
    with pytest.raises(TypeError):
        reward.weights["efficiency"] = -1.0  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        reward.scale = 1.0  # type: ignore[misc]
    changed = reward.with_weights({"efficiency": 5.0})
    assert torch.allclose(changed(outcome).total, result.total + 4 * result.terms["efficiency"])
    assert torch.equal(result.total, reward(outcome).total)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda reward: pickle.loads(pickle.dumps(reward))])
def test_what_describes_a_reward_is_what_it_pays(copied: Any) -> None:
    """A changed constant changes both describe() and the reward."""
    outcome = random_outcome(2)
    for base in (
        VaporReward(),
        VaporReward().with_weights({"penalty": 2.0}),
        VaporReward(terms=[generation_of_a_user]),
    ):
        changed = copied(replace(base, scale=1.0))
        assert changed.describe() == base.describe() | {"scale": 1.0}
        assert torch.equal(changed(outcome).raw["reconstruction"], -outcome.mse)
        assert torch.equal(base(outcome).raw["reconstruction"], -60 * outcome.mse)


def generation_of_a_user(outcome: Outcome) -> Tensor:
    return outcome.accuracy


def test_clip_terms_are_paid_at_their_step_and_path_terms_at_the_last() -> None:
    outcome = outcome_of([[[1, 16, 8, 8]]])
    off = dict.fromkeys(DEFAULT_WEIGHTS, 0.0)
    clip_term = VaporReward({**off, "efficiency": 2.0})(outcome)
    assert clip_term.per_decision.tolist() == [[[2 * 15 / 16 / 4, 0.0, 0.25, 0.25]]]
    assert clip_term.by_clip.tolist() == [[[2 * 15 / 16, 0.0, 1.0, 1.0]]]
    path_term = VaporReward({**off, "diversity": 4.0}, diversity_cap=0.5)(outcome)
    spread = 4 * float(np.std([1 / 16, 1.0, 0.5, 0.5]))
    assert path_term.per_decision[0, 0].tolist() == pytest.approx([0.0, 0.0, 0.0, spread])
    assert path_term.by_clip[0, 0].tolist() == pytest.approx([spread] * 4)


def test_a_term_without_a_weight_here_keeps_its_own() -> None:
    reward = VaporReward({"diversity": 0}, terms={"mine": generation})
    assert reward.weights == {**DEFAULT_WEIGHTS, "diversity": 0.0, "mine": 1.0}
    assert reward.names == (*DEFAULT_WEIGHTS, "mine")


def test_custom_callable() -> None:
    def shortest(outcome: Outcome) -> Tensor:
        return outcome.n_tokens.amin(-1).float()

    outcome = random_outcome(4)
    plain = VaporReward()(outcome)
    result = VaporReward({"shortest": -0.5}, terms={"shortest": shortest})(outcome)
    assert torch.equal(result.terms["shortest"], outcome.n_tokens.amin(-1).float())
    assert torch.allclose(result.total, plain.total - 0.5 * outcome.n_tokens.amin(-1))
    difference = (result.per_decision - plain.per_decision)[..., :-1]
    assert torch.allclose(difference, torch.zeros_like(difference), atol=1e-6)


@pytest.mark.parametrize("style", ["sequence", "mapping", "functions"])
def test_custom_term_by_name_or_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str) -> None:
    (tmp_path / "terms_of_a_user.py").write_text(
        "def motion(outcome):\n    return outcome.complexity[..., 1].expand(outcome.n_tokens.shape)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = "terms_of_a_user:motion"
    terms: Any = {"sequence": [path], "mapping": {"motion": path}, "functions": [load_term(path)]}[style]
    result = VaporReward(terms=terms)(random_outcome(0))
    assert result.terms["motion"].tolist() == torch.zeros(3, 2).tolist()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"weights": {"diversty": 1.0}}, "unknown term 'diversty'; did you mean 'diversity'?"),
        ({"weights": {"xyz": 1.0}}, "unknown term 'xyz'; pass the term itself in terms=."),
        ({"weights": {"log_mes": 1.0}}, "unknown term 'log_mes'; did you mean 'log_mse'?"),
        ({"weights": [1.0, 2.0]}, r"weights by term name, got \[1.0, 2.0\]"),
        ({"weights": {"penalty": "one"}}, "finite weight for 'penalty', got 'one'"),
        ({"weights": {"penalty": True}}, "finite weight for 'penalty', got True"),
        ({"weights": {"penalty": None}}, "finite weight for 'penalty', got None"),
        ({"weights": {"penalty": math.nan}}, "finite weight for 'penalty', got nan"),
        ({"weights": {"penalty": 1e308}}, "finite weight for 'penalty', got 1e\\+308"),
        ({"weights": {"penalty": -math.inf}}, "finite weight for 'penalty', got -inf"),
        ({"preset": "papr"}, "preset 'balanced' or 'paper' .*got 'papr'"),
        ({"n_threshold": 5}, "n_threshold ≤ 1 where threshold_unit='K', got 5"),
        ({"n_threshold": 0.5, "threshold_unit": "tokens"}, "n_threshold ≥ 1 .*got 0.5"),
        ({"n_threshold": 0.0, "threshold_unit": "prior"}, "n_threshold > 0, got 0"),
        ({"threshold_unit": "k"}, "threshold_unit 'tokens' or .*got 'k'"),
        ({"penalty_power": math.nan}, "penalty_power > 0, got nan"),
        ({"penalty_reduction": "max"}, "penalty_reduction 'mean' or .*got 'max'"),
        ({"diversity_cap": 0.0}, "0 < diversity_cap ≤ 0.5, got 0.0"),
        ({"diversity_scale": "2"}, "diversity_scale to be a number, got '2'"),
        ({"generation_scale": True}, "generation_scale to be a number, got True"),
        ({"scale": -1.0}, "scale ≥ 0, got -1"),
        ({"scale": math.inf}, "scale ≥ 0, got inf"),
        ({"terms": "module:name"}, "terms as a list of functions .* got 'module:name'"),
        ({"terms": [lambda outcome: outcome.mse]}, "a function with a name .*pass it by name"),
        ({"terms": [3]}, "a function with a name .*got 3"),
        ({"terms": {"efficiency": generation}}, "got 'efficiency' twice"),
        ({"terms": {"lpips": generation}}, "got 'lpips' twice"),
        ({"terms": ["vaportok_rl.envs.rewards:generation"]}, "got 'generation' twice"),
        ({"terms": {"three": 3}}, "a function or 'module:name' as 'three' in terms, got int"),
        ({"terms": ["no_such_module_here:three"]}, "'no_such_module_here:three', got ModuleNotFoundError"),
        ({"token_budget": 0}, "token_budget ≥ 1, got 0"),
        ({"token_budget": 2.5}, "token_budget to be a whole number, got 2.5"),
    ],
    # A function's text holds its address, and names of tests must be those of every process.
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_bad_settings_are_refused(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message.replace("?", r"\?")):
        VaporReward(**settings_)


def test_a_further_term_cannot_be_switched_on_later() -> None:
    with pytest.raises(ValueError, match="unknown term 'log_mse'; weight it when the reward is made"):
        VaporReward().with_weights({"log_mse": 1.0})


def test_build_reward() -> None:
    reward = VaporReward(scale=2.0)
    assert build_reward(reward) is reward
    assert build_reward(None).describe() == VaporReward().describe()
    built = build_reward({"preset": "paper", "weights": {"penalty": 0.5, "log_mse": 0.25}, "scale": 10.0, "terms": []})
    assert built.describe() == VaporReward(preset="paper").describe() | {
        "scale": 10.0,
        "weights": {**DEFAULT_WEIGHTS, "penalty": 0.5, "log_mse": 0.25},
    }
    json.dumps(built.describe(), allow_nan=False)
    with pytest.raises(ValueError, match=r"got 'scales'; did you mean 'scale'\?"):
        build_reward({"scales": 1.0})
    with pytest.raises(ValueError, match="a VaporReward, its keyword arguments or None, got 'paper'"):
        build_reward("paper")  # type: ignore[arg-type]


def test_presets() -> None:
    outcome = random_outcome(3)
    assert set(VaporReward().weights.values()) == {1.0}
    assert VaporReward(preset="balanced").describe() == VaporReward().describe()
    assert {name for name, weight in VaporReward(preset="rate-distortion").weights.items() if weight} == {
        "efficiency",
        "reconstruction",
    }
    # What was the default before: tables of numbers of that time stay comparable.
    raw = VaporReward(preset="spread")(outcome).raw
    short = (2 - outcome.n_tokens).clamp(min=0).float() / 2
    assert torch.equal(raw["penalty"], 0.0 - short**2.0)
    assert torch.equal(raw["diversity"], 2 * (outcome.n_tokens.float() / TOKENS).std(-1, correction=0))
    assert torch.equal(raw["reconstruction"], -outcome.mse * 60.0)
    assert torch.equal(raw["generation"], outcome.accuracy)


@pytest.mark.parametrize("length", [1, 2, 8])
def test_the_terms_that_ship_pass_the_dry_run(length: int) -> None:
    result = VaporReward(dict.fromkeys(FURTHER_TERMS, 1.0)).dry_run(length, TOKENS)
    assert list(result.raw) == [*DEFAULT_WEIGHTS, *FURTHER_TERMS]
    assert {name for name, value in result.raw.items() if value.dim() == 2} == {
        "diversity",
        "codebook_usage",
        "budget_overrun",
    }
