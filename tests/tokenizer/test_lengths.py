"""The taildrop module, lengths drawn in training and chosen at inference, and the masks of Figure 2."""

import re
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Categorical, Normal, kl_divergence

from vaportok_rl.tokenizer import ComplexityConfig, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.lengths import (
    Strategy,
    TaildropQueryModule,
    decoder_visible,
    inference_lengths,
    kept_tokens,
    length_kl,
    prior_supervised,
    training_lengths,
)
from vaportok_rl.tokenizer.prior import prior_loss


@given(
    st.integers(1, 40), st.floats(0, 8), st.floats(0, 30), st.floats(0.05, 1), st.floats(0, 5), st.integers(0, 2**32)
)
def test_length_kl_to_the_gaussian_prior(
    tokens: int, spatial: float, temporal: float, deviation: float, spread: float, seed: int
) -> None:
    scale = ComplexityScale(ComplexityConfig(deviation=deviation), tokens)
    complexity = torch.tensor([[spatial, temporal]])
    log_p = (spread * torch.randn(1, tokens, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    low, high = ComplexityConfig().mean_range
    mean = tokens * (low + (high - low) * scale.score(complexity).double())
    densities = Normal(mean, deviation * tokens).log_prob(torch.arange(1, tokens + 1, dtype=torch.float64))
    expected = kl_divergence(Categorical(logits=log_p.double()), Categorical(logits=densities[None]))
    actual = length_kl(log_p, scale.gaussian_prior(complexity)).double()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_temperature_divides_the_logits(tiny: VaporTok, tiny_config: VaporTokConfig, temperature: float) -> None:
    config = replace(tiny_config, taildrop=replace(tiny_config.taildrop, temperature=temperature))
    module = TaildropQueryModule(config).eval()
    module.load_state_dict(tiny.taildrop_module.state_dict())
    latents = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    logits = module.trunk(latents) @ module.head.weight.T + module.head.bias
    expected = (logits / temperature).softmax(-1)
    distribution = module.distribution(latents)
    torch.testing.assert_close(distribution.probs, expected)
    torch.testing.assert_close(module(latents).exp(), expected)
    assert distribution.batch_shape == (3,)
    assert distribution.logits.shape == (3, 8)


def test_an_untrained_module_is_uniform(tiny_config: VaporTokConfig) -> None:
    model = VaporTok(tiny_config).freeze()
    probabilities = model.taildrop(torch.randn(2, 8, 16)).probs
    torch.testing.assert_close(probabilities, torch.full((2, 8), 1 / 8))


def test_every_latent_is_read(tiny: VaporTok) -> None:
    latents = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(2))
    before = tiny.taildrop(latents).probs
    for token in range(8):
        changed = latents.clone()
        changed[:, token] += torch.linspace(-1, 1, 16)
        assert (tiny.taildrop(changed).probs - before).abs().max() > 1e-5


STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
# The argmax is neither the first nor the last length, so that every strategy is another distribution.
PROBABILITIES = (0.02, 0.18, 0.1, 0.4, 0.0, 0.25, 0.05)
DRAWS = 20_000
LAST = 1 - 2**-24  # the largest float32 below 1


def distribution(strategy: Strategy) -> npt.NDArray[np.float64]:
    """The distribution of lengths by C.4, for `PROBABILITIES`."""
    share = np.array(PROBABILITIES)
    match strategy:
        case "naive":
            return np.full(7, 1 / 7)
        case "argmax":
            return np.array([0, 0, 0, 1.0, 0, 0, 0])
        case "sample":
            return share
        case "pre-sample":
            return np.array([*share[:4] / share[:4].sum(), 0, 0, 0])


def noise_of(clips: int, seed: int) -> Tensor:
    return torch.rand(clips, 3, generator=torch.Generator().manual_seed(seed))


def pvalue(drawn: Tensor, expected: npt.NDArray[np.float64]) -> float:
    """Chi-square of lengths against their distribution; 0 where an impossible length was drawn."""
    counts = torch.bincount(drawn - 1, minlength=len(expected)).double().numpy()
    possible = expected > 0
    if counts[~possible].sum() > 0:
        return 0.0
    if possible.sum() == 1:
        return 1.0
    return float(stats.chisquare(counts[possible], expected[possible] * len(drawn)).pvalue)


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.3), (0.25, 0.15), (1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lengths_are_drawn_from_the_strategy_and_its_shares(strategy: Strategy, shares: tuple[float, float]) -> None:
    log_p = torch.tensor(PROBABILITIES).log().expand(DRAWS, 7)
    uniform, full = shares
    drawn = training_lengths(log_p, strategy, (1 - uniform - full, *shares), noise=noise_of(DRAWS, 1))
    assert (drawn.shape, drawn.dtype) == ((DRAWS,), torch.int64)
    expected = (1 - uniform - full) * distribution(strategy) + uniform / 7 + full * np.eye(7)[6]
    assert pvalue(drawn, expected) > 1e-4


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows of log-probabilities, peaked or flat and in part impossible, and noise that visits the ends of [0, 1)."""
    clips, tokens = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 17, 1000, 1024]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = draw(st.sampled_from([0.0, 1.0, 30.0])) * torch.randn(clips, tokens, generator=generator)
    impossible = torch.rand(clips, tokens, generator=generator) < draw(st.sampled_from([0.0, 0.5, 0.99]))
    impossible[:, draw(st.integers(0, tokens - 1))] = False
    ends = st.sampled_from([0.0, LAST, 0.5])
    noise = draw(st.lists(st.one_of(ends, st.floats(0, LAST, width=32)), min_size=3 * clips, max_size=3 * clips))
    return logits.masked_fill(impossible, -torch.inf).log_softmax(-1), torch.tensor(noise).view(clips, 3)


@given(cases(), st.sampled_from(STRATEGIES))
def test_the_distribution_is_inverted(case: tuple[Tensor, Tensor], strategy: Strategy) -> None:
    log_p, noise = case
    drawn = training_lengths(log_p, strategy, noise=noise).tolist()
    for row, n in enumerate(drawn):
        share = log_p[row].double().exp().numpy()
        best = int(share.argmax())
        if strategy == "naive":
            share = np.ones(len(share))
        elif strategy == "argmax":
            assert n == best + 1
            continue
        elif strategy == "pre-sample":
            share[best + 1 :] = 0
        assert 1 <= n <= len(share)
        assert share[n - 1] > 0
        cumulative = np.concatenate([[0], share.cumsum() / share.sum()])
        uniform = noise[row, 1 if strategy == "naive" else 0].item()
        assert cumulative[n - 1] - 1e-5 <= uniform <= cumulative[n] + 1e-5


@pytest.mark.parametrize("tokens", [1, 2, 64, 1000])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_ends_of_the_range(strategy: Strategy, tokens: int) -> None:
    flat = torch.zeros(2, tokens).log_softmax(-1)
    flat[:, -1] += 1e-3  # the argmax is the last length
    noise = torch.tensor([[0.0] * 3, [LAST] * 3])
    expected = [tokens, tokens] if strategy == "argmax" else [1, tokens]
    assert training_lengths(flat, strategy, noise=noise).tolist() == expected
    assert training_lengths(flat, strategy, (0, 0.5, 0.5), noise=noise).tolist() == [1, tokens]
    first = torch.full((2, tokens), -50.0)
    first[:, 0] = 0
    if strategy != "naive":  # all the probability is on one token: the region up to the argmax is n = 1 alone
        assert training_lengths(first.log_softmax(-1), strategy, noise=noise).tolist() == [1, 1]


def test_impossible_lengths_around_the_draw_are_never_taken() -> None:
    log_p = torch.tensor([[0.0, 0.0, 0.3, 0.0, 0.7, 0.0, 0.0]]).log().expand(4, 7)
    noise = torch.tensor([0.0, 0.2999, 0.3001, LAST])[:, None].expand(4, 3)
    assert training_lengths(log_p, "sample", noise=noise).tolist() == [3, 3, 5, 5]


def test_a_sum_that_rounds_upwards_on_an_impossible_length(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a parallel sum on an accelerator may be.
    rounded = torch.tensor([[0.0, 0.25, 0.26, 0.255, 0.5, 1.0, 1.01]])
    monkeypatch.setattr(Tensor, "cumsum", lambda weights, dim: rounded.expand(weights.shape))
    log_p = torch.tensor([[0.0, 0.25, 0.0, 0.0, 0.25, 0.5, 0.0]]).log().expand(4, 7)
    noise = (torch.tensor([0.1, 0.256, 0.3, 1.005]) / 1.01)[:, None].expand(4, 3)
    assert training_lengths(log_p, "sample", noise=noise).tolist() == [2, 2, 5, 6]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_clips_length_depends_on_its_own_row_only(strategy: Strategy) -> None:
    log_p = torch.randn(40, 33, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    noise, mixture = noise_of(40, 3), (0.7, 0.2, 0.1)
    together = training_lengths(log_p, strategy, mixture, noise=noise)
    halves = [training_lengths(log_p[i::2], strategy, mixture, noise=noise[i::2]) for i in range(2)]
    assert torch.equal(torch.stack(halves, 1).flatten(), together)
    assert torch.equal(training_lengths(log_p, strategy, mixture, noise=noise), together)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_inference_keeps_the_tokens_up_to_the_argmax_or_all(strategy: Strategy, tokens: int) -> None:
    log_p = torch.randn(6, tokens, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    lengths = inference_lengths(log_p, strategy)
    assert lengths.dtype == torch.int64
    best = [max(range(tokens), key=row.__getitem__) + 1 for row in log_p.tolist()]
    assert lengths.tolist() == ([tokens] * 6 if strategy == "naive" else best)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_read_back_from_the_device(strategy: Strategy) -> None:
    with FakeTensorMode():
        log_p, noise = torch.empty(4, 9, device="cuda"), torch.empty(4, 3, device="cuda")
        drawn = training_lengths(log_p, strategy, (0.8, 0.1, 0.1), noise=noise)
        chosen = inference_lengths(log_p, strategy)
    assert drawn.device.type == chosen.device.type == "cuda"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "presample"}, "among 'naive', 'argmax', 'sample', 'pre-sample', got 'presample'"),
        ({"mixture": (1.1, -0.1, 0)}, "sum to 1 (strategy, uniform, all K), got (1.1, -0.1, 0)"),
        ({"mixture": (0.6, 0.6, 0)}, "sum to 1 (strategy, uniform, all K), got (0.6, 0.6, 0)"),
        ({"mixture": (0.4, 0.6, float("nan"))}, "got (0.4, 0.6, nan)"),
        ({"noise": torch.zeros(5, 2)}, "floats [5, 3], got torch.float32 of shape (5, 2); draw torch.rand(5, 3)"),
        ({"noise": torch.zeros(4, 3)}, "floats [5, 3], got torch.float32 of shape (4, 3)"),
        ({"noise": torch.zeros(5, 3, dtype=torch.int64)}, "floats [5, 3], got torch.int64"),
    ],
)
def test_misuse_is_explained(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"log_p": torch.zeros(5, 9), "strategy": "sample", "noise": torch.zeros(5, 3)} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        training_lengths(**arguments)


def prior_attention(n_tokens: Tensor, tokens: int) -> Tensor:
    """The explicit attention mask of Figure 2(b): ``bool [B, tokens, tokens]``, True where row may attend to column.

    Both tokens are kept and the column is not later. A dropped one sees only itself, so that its row is a distribution.
    """
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    kept = kept_tokens(n_tokens, tokens)
    return (causal & kept[:, :, None] & kept[:, None, :]) | torch.eye(tokens, dtype=torch.bool)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[list[int], int]:
    tokens = draw(st.integers(1, 12))
    return draw(st.lists(st.integers(1, tokens), min_size=1, max_size=5)), tokens


@given(lengths())
def test_kept_tokens(case: tuple[list[int], int]) -> None:
    n_tokens, tokens = case
    expected = [[index < n for index in range(tokens)] for n in n_tokens]
    assert kept_tokens(torch.tensor(n_tokens), tokens).tolist() == expected
    batched = kept_tokens(torch.tensor(n_tokens)[:, None, None].expand(-1, 2, 3), tokens)
    assert batched.shape == (len(n_tokens), 2, 3, tokens)
    assert batched[:, 1, 2].tolist() == expected


@given(lengths(), st.integers(1, 5))
def test_decoder_sees_kept_latents_and_all_patches(case: tuple[list[int], int], patches: int) -> None:
    n_tokens, tokens = case
    visible = decoder_visible(torch.tensor(n_tokens), tokens, patches)
    for row, n in enumerate(n_tokens):
        for key in range(tokens + patches):
            is_patch = key >= tokens
            assert visible[row, key].item() == (is_patch or key + 1 <= n)


@given(lengths())
def test_prior_is_supervised_where_the_label_is_kept(case: tuple[list[int], int]) -> None:
    n_tokens, tokens = case
    supervised = prior_supervised(torch.tensor(n_tokens), tokens)
    assert supervised.shape == (len(n_tokens), tokens - 1)
    for row, n in enumerate(n_tokens):
        kept_labels = [label for label in range(1, tokens) if label in range(n)]
        assert (supervised[row].nonzero().flatten() + 1).tolist() == kept_labels
        assert supervised[row].sum() == n - 1


def test_figure_2b_equals_causal_mask_in_loss_and_gradient(tiny: VaporTok) -> None:
    torch.manual_seed(4)
    tiny.requires_grad_(True)
    tokens = tiny.config.tokens
    n_tokens = torch.tensor([1, 2, 5, tokens])
    codes = torch.randint(tiny.config.codebook_size, (4, tokens))
    vectors = tiny.bottleneck.regularizer.lookup(codes).detach()
    book = tiny.bottleneck.regularizer.unit_codes()
    gradients = []
    for mask in (None, prior_attention(n_tokens, tokens - 1)):
        inputs = vectors.clone().requires_grad_(True)
        loss = prior_loss(tiny.prior_model.logits(inputs, book, mask), codes, n_tokens)
        parameters = [inputs, *tiny.prior_model.parameters()]
        gradients.append((loss.item(), torch.autograd.grad(loss, parameters)))
    (causal_loss, causal), (masked_loss, masked) = gradients
    assert masked_loss == pytest.approx(causal_loss, abs=1e-6)
    for one, two in zip(causal, masked, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    # Token n - 1 is a kept label but no input of a supervised prediction; nothing past it matters either.
    for row, n in enumerate(n_tokens.tolist()):
        assert causal[0][row, n - 1 :].eq(0).all()
