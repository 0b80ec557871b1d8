"""The dry run finds every violation of the contract of reward terms, with the right reason."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vaportok_rl.envs import Outcome, TaildropEnv, VaporReward
from vaportok_rl.envs.rewards.contract import (
    across_group,
    dry_run_pixel_term,
    dry_run_term,
    evaluate_term,
    load_term,
    mixed_lengths,
    needs,
    synthetic_outcome,
)

LENGTH, TOKENS = 5, 16


def dry_run(term: Callable[[Outcome], Tensor], path_length: int = LENGTH) -> Tensor:
    return dry_run_term("mine", term, path_length, TOKENS, "cpu", ["bits", "lpips"])


def made_up(device: str, measures: list[str]) -> Outcome:
    return synthetic_outcome(mixed_lengths(LENGTH, TOKENS), TOKENS, device, measures)


def test_the_synthetic_outcome_is_a_possible_one() -> None:
    outcome = made_up("cpu", ["bits"])
    assert outcome.n_tokens.shape == outcome.mse.shape == outcome.accuracy.shape == (2, 2, LENGTH)
    # Each clip is seen at both ends by each scene, and there are uniform as well as mixed paths.
    assert outcome.n_tokens.unique().tolist() == [1, TOKENS]
    assert (outcome.n_tokens[0] != outcome.n_tokens[1]).all()
    assert outcome.n_tokens.float().std(-1).count_nonzero() == 2
    assert ((outcome.accuracy > 0) == (outcome.n_tokens > 1)).all()
    assert (outcome.mse > 0).all()
    assert outcome.codes is not None
    assert outcome.codes.shape == (2, LENGTH, TOKENS)
    assert outcome.codes.min() >= 0
    assert outcome.codes.max() < TOKENS
    assert list(outcome.measures) == ["bits"]


@pytest.mark.parametrize(
    "term",
    [
        lambda outcome: outcome.psnr,
        lambda outcome: outcome.n_tokens.double().sqrt(),
        lambda outcome: outcome.complexity[..., 1].expand(outcome.n_tokens.shape),
        lambda outcome: outcome.n_tokens * torch.linspace(0, 1, outcome.n_tokens.shape[-1]),
        lambda outcome: outcome.psnr.amin(-1),
        lambda outcome: outcome.mse.half().mean(-1),
        lambda outcome: outcome.measures["bits"] / outcome.n_tokens,
    ],
    ids=["clip", "double", "scene", "weighted by position", "path", "half", "measure"],
)
@pytest.mark.parametrize("path_length", [1, 2, LENGTH])
def test_sound_terms_pass(term: Callable[[Outcome], Tensor], path_length: int) -> None:
    value = dry_run(term, path_length)
    assert value.dtype == torch.float32
    assert tuple(value.shape) in ((2, 2, path_length), (2, 2))


def chance(outcome: Outcome) -> Tensor:
    return torch.rand(outcome.n_tokens.shape)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda outcome: outcome.mse.mean(), r"to return a tensor \[G, P, L\] = .* got \(\)"),
        (lambda outcome: outcome.mse.mean(0), r"got \(1, 5\)"),
        (lambda outcome: 1.0, "got float"),
        (lambda outcome: outcome.n_tokens, r"to return floats, got torch.int64; end it with .float\(\)"),
        (lambda outcome: outcome.n_tokens > 3, "to return floats, got torch.bool"),
        (lambda outcome: outcome.mse.to("meta"), "to return a tensor on cpu.*got one on meta"),
        (lambda outcome: outcome.mse.clone().requires_grad_(), "without gradient"),
        (lambda outcome: (outcome.n_tokens - 1).float().log(), "got -inf where n_tokens = 1;"),
        (lambda outcome: outcome.accuracy / outcome.accuracy, "got nan where n_tokens = 1;"),
        (lambda outcome: 1 / (outcome.tokens - outcome.n_tokens), "got inf where n_tokens = 16;"),
        (
            lambda outcome: 1 / outcome.n_tokens.float().std(-1),
            r"got inf where n_tokens = \[1, 1, 1, 1, 1\]; guard the division",
        ),
        (lambda outcome: 1 / (outcome.n_tokens - 7), "got inf where n_tokens = 7;"),
        (
            lambda outcome: 1 / (outcome.n_tokens.float().mean(-1) - 7),
            r"got inf where n_tokens = \[7, 7, 7, 7, 7\]; guard the division",
        ),
        (lambda outcome: outcome.accuracy.zero_(), "to leave its outcome as it was, got another accuracy"),
        (lambda outcome: outcome.n_tokens.fill_(1) * 1.0, "got another n_tokens after it ran"),
        (lambda outcome: outcome.codes.zero_()[..., 0] + outcome.mse, "got another codes"),
        (lambda outcome: outcome.scene.complexity.mul_(2)[..., 0] + outcome.mse, "got another complexity"),
        (lambda outcome: outcome.measures["bits"].neg_(), "got another bits"),
        (lambda outcome: outcome.labels, "a dry run of 5 clips with 16 tokens each, got AttributeError: .*labels"),
        (lambda outcome: outcome.measures["fvd"], "got KeyError: 'fvd'"),
        (lambda outcome: outcome.n_tokens - outcome.n_tokens.float().mean(0), "score each path by itself"),
        (lambda outcome: outcome.mse.mean((0, 2)).expand(outcome.n_tokens.shape[:2]), "score each path by itself"),
        (lambda outcome: outcome.psnr.mean(-1) - outcome.psnr.mean(), "score each path by itself"),
        (chance, "score each path by itself.*avoid randomness"),
        (lambda outcome: outcome.n_tokens - outcome.n_tokens.float().mean(-1, True), "score each clip by itself"),
        (lambda outcome: outcome.psnr.cumsum(-1), "score each clip by itself"),
        (lambda outcome: outcome.psnr.roll(-1, -1), r"score each clip by itself.*return \[G, P\]"),
        (lambda outcome: outcome.complexity.mean(1, True)[..., 0] + outcome.mse, "score each clip by itself"),
    ],
)
def test_what_breaks_the_contract_is_found(term: Callable[[Outcome], Tensor], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=f"^Expected reward term 'mine' .*{message}"):
        dry_run(term)


def test_a_single_clip_is_a_dry_run_of_its_own() -> None:
    def spread(outcome: Outcome) -> Tensor:
        return outcome.n_tokens.float().std(-1)

    with pytest.warns(UserWarning, match="degrees of freedom"), pytest.raises(ValueError, match=r"got nan.*\[1\]"):
        dry_run(spread, path_length=1)
    dry_run(spread, path_length=2)


@across_group
def spread_of_group(outcome: Outcome) -> Tensor:
    return outcome.n_tokens.float().mean(-1).std(0, correction=0).expand(outcome.n_tokens.shape[:2])


def test_a_group_term_sees_its_group_and_no_more() -> None:
    reward = VaporReward(terms=[spread_of_group])
    outcome = made_up("cpu", [])
    means = outcome.n_tokens.float().mean(-1)
    reward.dry_run(LENGTH, TOKENS)
    assert torch.allclose(reward(outcome).raw["spread_of_group"], means.std(0, correction=0).expand(2, 2))
    # A path scored alone is a group of one.
    alone = reward(outcome, grouped=False)
    assert not alone.raw["spread_of_group"].any()
    others = VaporReward()(outcome)
    assert all(torch.equal(alone.raw[name], value) for name, value in others.raw.items())
    assert torch.equal(alone.by_clip, others.by_clip)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda outcome: outcome.psnr, r"return a tensor \[G, P\] = .*got \(.*5\)"),
        (lambda outcome: outcome.psnr.mean(-1) - outcome.psnr.mean(), "another scene gone"),
        (lambda outcome: outcome.psnr.mean(-1).cumsum(0), "in any order"),
        (lambda outcome: outcome.psnr.mean(-1).std(0, True).expand(outcome.psnr.shape[:2]), "to be finite"),
    ],
    ids=["clips", "scenes", "order", "single"],
)
@pytest.mark.filterwarnings("ignore:std")
def test_what_breaks_the_contract_of_group_terms(term: Callable[[Outcome], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dry_run(across_group(term))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda decoded, clip: (decoded - clip).abs().mean(), r"\[B\] = \(2,\), got torch.float32 \(\)"),
        (lambda decoded, clip: 1.0, "got float"),
        (lambda decoded, clip: decoded.label, "got AttributeError"),
        (lambda decoded, clip: 0 / (decoded - decoded).flatten(1).mean(1), "to be finite, got .nan"),
        (lambda decoded, clip: (decoded - clip.mean(0)).flatten(1).mean(1), "the other pair gone"),
        (lambda decoded, clip: decoded.sub_(clip).flatten(1).mean(1), "other pixels after it ran"),
        (lambda decoded, clip: (decoded - clip.mul_(2)).flatten(1).mean(1), "other pixels after it ran"),
    ],
)
def test_what_breaks_the_contract_of_pixel_terms(term: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=f"pixel term 'mine' .*{message}"):
        dry_run_pixel_term("mine", term, (3, 4, 8, 8), "cpu")


def test_needs_are_declared_and_checked() -> None:
    @needs("bits", "lpips")
    def both(outcome: Outcome) -> Tensor:
        return -outcome.measures["bits"] - outcome.measures["lpips"]

    reward = VaporReward(terms={"both": both})
    assert reward.needs == {"bits", "lpips"}
    assert VaporReward().needs == frozenset()
    reward.dry_run(LENGTH, TOKENS)
    with pytest.raises(ValueError, match=r"measures of reward term 'both', got none of lpips; score it with"):
        evaluate_term("both", both, made_up("cpu", ["bits"]))
    with pytest.raises(ValueError, match="'odd' to need measures among bits, lpips, ssim, got fvd"):
        VaporReward(terms={"odd": needs("fvd")(lambda outcome: outcome.measures["fvd"])})


def test_on_a_hot_path_no_value_is_read() -> None:
    # A meta tensor has no values: reading one raises.
    outcome = made_up("meta", ["bits", "lpips"])
    terms = ("log_mse", "lpips", "prior_bits", "codebook_usage", "budget_overrun")
    result = VaporReward(dict.fromkeys(terms, 1.0))(outcome)
    assert result.total.shape == (2, 2)
    assert result.payments.shape == (10, 2, 2, LENGTH)


def test_the_environment_refuses_a_broken_term_when_it_is_made(tiny_world: str) -> None:
    terms = {"unlucky": lambda outcome: outcome.mse * math.nan}
    with pytest.raises(ValueError, match="Expected reward term 'unlucky' to be finite"):
        TaildropEnv(tokenizer=tiny_world, path_length=3, reward={"terms": terms})


def test_a_term_by_name_is_a_function() -> None:
    with pytest.raises(ValueError, match="Expected a function at 'math:pi', got float"):
        load_term("math:pi")
