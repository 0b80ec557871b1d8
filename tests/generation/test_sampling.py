"""Guidance, temperature, top-k, top-p and the draw, against loops over tokens."""

import math

import pytest
import torch

from vaportok_rl.generation.sampling import SamplingOptions, draw_tokens, guided, token_probabilities


def reference(logits: list[float], options: SamplingOptions) -> list[float]:
    """The distribution by the books: weights, the k largest, the fewest that reach p."""
    weights = [math.exp(value / options.temperature) for value in logits]
    ranked = sorted(range(len(weights)), key=lambda token: -weights[token])
    ranked = ranked[: options.top_k or len(ranked)]
    total, reached, kept = sum(weights[token] for token in ranked), 0.0, []
    for token in ranked:
        kept.append(token)
        reached += weights[token] / total
        if reached >= options.top_p:
            break
    left = sum(weights[token] for token in kept)
    return [weights[token] / left if token in kept else 0.0 for token in range(len(weights))]


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.5),
        SamplingOptions(top_k=3),
        SamplingOptions(top_k=1),
        SamplingOptions(top_k=99),
        SamplingOptions(top_p=0.6),
        SamplingOptions(top_p=1e-9),
        SamplingOptions(temperature=2.0, top_k=4, top_p=0.7),
    ],
)
def test_probabilities_are_those_of_the_books(options: SamplingOptions) -> None:
    logits = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) * 2
    logits[:, 2] = -torch.inf
    found = token_probabilities(logits, options)
    expected = torch.tensor([reference(row, options) for row in logits.tolist()])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_tokens_that_reach_p_exactly_suffice() -> None:
    found = token_probabilities(torch.zeros(1, 4), SamplingOptions(top_p=0.5))
    assert found.tolist() == [[0.5, 0.5, 0, 0]]


def test_draws_are_by_inversion_and_never_impossible() -> None:
    probabilities = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    numbers = (torch.arange(4000) + 0.5) / 4000
    drawn = draw_tokens(probabilities.expand(4000, -1), numbers)
    assert torch.bincount(drawn, minlength=6).tolist() == [0, 1000, 0, 2000, 1000, 0]
    ends = torch.tensor([0.0, torch.finfo(torch.float32).eps, 1 - 2**-24])
    assert draw_tokens(probabilities.expand(3, -1), ends).tolist() == [1, 1, 4]


def test_guidance_is_linear_in_the_logits() -> None:
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    for scale, expected in ((0, other), (1, one), (3, torch.tensor([3.0, -2.0]))):
        torch.testing.assert_close(guided(one, other, scale), expected)


@pytest.mark.parametrize(
    "options", [{"guidance": -1}, {"temperature": 0}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": 1.5}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        SamplingOptions(**options)
