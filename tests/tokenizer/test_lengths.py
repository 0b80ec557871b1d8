"""The taildrop module's distribution and its prior loss."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal, kl_divergence

from vaportok_rl.tokenizer import ComplexityConfig, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.lengths import TaildropQueryModule, length_kl


def log_probabilities(rows: int, lengths: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, lengths, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_length_kl_is_the_divergence() -> None:
    log_p, log_q = log_probabilities(6, 9), log_probabilities(6, 9, seed=1)
    expected = kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    torch.testing.assert_close(length_kl(log_p, log_q), expected)
    torch.testing.assert_close(length_kl(log_p, log_p), torch.zeros(6))
    assert length_kl(log_p, log_q).min() > 0


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


def test_the_supplements_temperature_and_depth_are_the_default() -> None:
    module = VaporTok(VaporTokConfig()).taildrop_module
    assert module.temperature == 1.8
    assert len(module.trunk.transformer.blocks) == 2


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


def test_clips_do_not_read_each_other(tiny: VaporTok) -> None:
    latents = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(3))
    together = tiny.taildrop(latents).probs
    alone = torch.cat([tiny.taildrop(one[None]).probs for one in latents])
    torch.testing.assert_close(together, alone)
