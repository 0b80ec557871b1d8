"""The quantiser against loops, the straight-through gradient, and sampled frequencies."""

import math

import pytest
import torch
from scipy import stats

from vaportok_rl.tokenizer.quantizer import Bottleneck, Codebook, Uniform


def seeded(seed: int) -> Uniform:
    """Uniform numbers out of one stream."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand(shape, generator=generator)


def bottleneck(norm: str = "none", temperature: float = 0.03) -> Bottleneck:
    torch.manual_seed(0)
    return Bottleneck(width=12, codes=10, code_width=4, norm=norm, temperature=temperature)


def slow_nearest(vector: list[float], book: list[list[float]]) -> int:
    def cosine(one: list[float], two: list[float]) -> float:
        return sum(a * b for a, b in zip(one, two, strict=True)) / (math.hypot(*one) * math.hypot(*two))

    similarities = [cosine(vector, code) for code in book]
    return similarities.index(max(similarities))


def test_codes_are_nearest_by_cosine() -> None:
    layer = bottleneck()
    latents = torch.randn(3, 7, 12)
    quantized = layer.quantize(latents)
    assert (quantized.codes.shape, quantized.codes.dtype) == ((3, 7), torch.int64)
    projected = latents @ layer.in_linear.weight.T + layer.in_linear.bias
    book = layer.regularizer.embedding.weight.tolist()
    for clip in range(3):
        for token in range(7):
            assert quantized.codes[clip, token] == slow_nearest(projected[clip, token].tolist(), book)
            vector = projected[clip, token]
            torch.testing.assert_close(quantized.unit[clip, token], vector / math.hypot(*vector.tolist()))
    assert quantized.codes.unique().numel() > 3


def test_code_vectors_are_unit_rows_of_the_book() -> None:
    layer = bottleneck()
    quantized = layer.quantize(torch.randn(2, 5, 12))
    rows = layer.regularizer.embedding.weight[quantized.codes]
    expected = rows / rows.square().sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(quantized.vectors, expected, rtol=0, atol=1e-6)
    assert torch.equal(layer.regularizer.lookup(quantized.codes), layer.regularizer.unit_codes()[quantized.codes])
    torch.testing.assert_close(layer.regularizer.unit_codes().square().sum(1), torch.ones(10))


@pytest.mark.parametrize("sample", [False, True])
def test_straight_through_gradient_is_that_of_the_unit_vectors(sample: bool) -> None:
    layer = bottleneck()
    latents = torch.randn(2, 5, 12, requires_grad=True)
    weights = torch.randn(2, 5, 4)
    quantized = layer.quantize(latents, seeded(1) if sample else None)
    (through,) = torch.autograd.grad((quantized.vectors * weights).sum(), latents, retain_graph=True)
    (direct,) = torch.autograd.grad((quantized.unit * weights).sum(), latents)
    assert torch.equal(through, direct)
    assert through.abs().max() > 0
    loss = (layer.quantize(latents).vectors * weights).sum()
    assert torch.autograd.grad(loss, layer.regularizer.embedding.weight, allow_unused=True) == (None,)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_sampled_frequencies_follow_the_softmax(temperature: float) -> None:
    torch.manual_seed(2)
    book = Codebook(codes=6, width=3, temperature=temperature)
    unit = torch.nn.functional.normalize(torch.randn(3), dim=0)
    expected = [
        math.exp(sum(a * b for a, b in zip(unit.tolist(), code, strict=True)) / temperature)
        for code in book.unit_codes().tolist()
    ]
    share = torch.tensor(expected, dtype=torch.float64) / sum(expected)
    drawn = book.sample(unit.expand(20_000, 3), seeded(3))
    counts = torch.bincount(drawn, minlength=6).double()
    likely = share * 20_000 >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([share[likely], share[~likely].sum()[None]]) * 20_000
    if wanted[-1] < 5:
        assert observed[-1] < 30
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    assert stats.chisquare(observed.numpy(), wanted.numpy()).pvalue > 1e-3


def test_tokens_are_sampled_independently_and_by_the_generator() -> None:
    book = Codebook(codes=4, width=3, temperature=1e6)
    unit = torch.zeros(5000, 2, 3)
    first, again, other = (book.sample(unit, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    pairs = torch.bincount(4 * first[:, 0] + first[:, 1], minlength=16)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_a_cold_quantiser_samples_the_nearest_code() -> None:
    layer = bottleneck(temperature=1e-5)
    latents = torch.randn(4, 50, 12)
    sampled = layer.quantize(latents, seeded(0)).codes
    assert torch.equal(sampled, layer.quantize(latents).codes)


def test_batch_norm_standardises_before_the_unit_sphere() -> None:
    layer = bottleneck("batch")
    latents = torch.randn(3, 40, 12) * 0.1 + 1
    projected = layer.in_linear(latents)
    mean, variance = projected.mean((0, 1)), projected.var((0, 1), unbiased=False)
    expected = torch.nn.functional.normalize((projected - mean) / (variance + 1e-5).sqrt(), dim=-1)
    torch.testing.assert_close(layer.train().to_unit(latents), expected, rtol=1e-3, atol=1e-4)
    # In evaluation a clip does not depend on the others in the batch.
    layer.eval()
    torch.testing.assert_close(layer.to_unit(latents[:1]), layer.to_unit(latents)[:1])


def test_quantisation_stays_float32_under_autocast() -> None:
    layer = bottleneck()
    latents = torch.randn(2, 5, 12)
    plain = layer.quantize(latents)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer.quantize(latents)
    assert cast.vectors.dtype == cast.unit.dtype == torch.float32
    assert torch.equal(cast.unit, plain.unit)
    assert torch.equal(cast.codes, plain.codes)
