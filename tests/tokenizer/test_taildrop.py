"""The taildrop module's distribution, its prior loss and the training lengths drawn from it."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, kl_divergence

from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.taildrop import TaildropQueryModule, length_kl, sample_lengths


def log_probabilities(rows: int, lengths: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, lengths, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_length_kl_is_the_divergence() -> None:
    log_p, log_q = log_probabilities(6, 9), log_probabilities(6, 9, seed=1)
    expected = kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    torch.testing.assert_close(length_kl(log_p, log_q), expected)
    torch.testing.assert_close(length_kl(log_p, log_p), torch.zeros(6))
    assert length_kl(log_p, log_q).min() > 0


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_lengths_are_drawn_from_the_mixture(share: float) -> None:
    probabilities = torch.tensor([0.02, 0.5, 0.2, 0.08, 0.2])
    log_p = probabilities.log().expand(20_000, 5)
    drawn = sample_lengths(log_p, share, generator=torch.Generator().manual_seed(1))
    assert (drawn.shape, drawn.dtype) == ((20_000,), torch.int64)
    counts = torch.bincount(drawn, minlength=6)
    assert counts[0] == 0
    expected = ((1 - share) * probabilities + share / 5).double() * 20_000
    assert stats.chisquare(counts[1:].double().numpy(), expected.numpy()).pvalue > 1e-3


def test_each_clip_has_its_own_distribution() -> None:
    log_p = torch.eye(7).log().clamp(min=-100)
    assert sample_lengths(log_p, 0.0, generator=torch.Generator().manual_seed(0)).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_sampling_follows_the_generator_and_needs_no_gradient() -> None:
    log_p = log_probabilities(50, 9).requires_grad_(True)
    first, again = (sample_lengths(log_p, 0.5, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert not first.requires_grad


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
