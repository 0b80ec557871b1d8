"""The complete loss, term by term, against closed forms and slower paths."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from vaportok_rl.tokenizer import VaporTok, clip_complexity
from vaportok_rl.tokenizer.pretraining import LossWeights, loss
from vaportok_rl.tokenizer.pretraining.loss import CompleteLoss, StepResult
from vaportok_rl.tokenizer.pretraining.schedule import Phase

CONTINUOUS = Phase(quantized_share=0.0, random_lengths=False, sampling_ratio=0.0, length_mixture=(0.6, 0.4, 0))
QUANTIZED = replace(CONTINUOUS, quantized_share=1.0)
NOTHING = LossWeights(l1=0, squared_error=0, commitment=0, representation=0, probability=0)


@pytest.fixture
def model(tiny: VaporTok) -> VaporTok:
    """Trainable, without batch statistics, and so cold that sampled codes are the nearest ones."""
    cold = VaporTok(replace(tiny.config, code_norm="none", quantizer_temperature=1e-6))
    cold.load_state_dict({name: value for name, value in tiny.state_dict().items() if "norm_layer" not in name})
    return cold.train()


def evaluate(model: VaporTok, clips: Tensor, phase: Phase, weights: LossWeights | None = None) -> StepResult:
    torch.manual_seed(0)
    result: StepResult = CompleteLoss(model, LossWeights() if weights is None else weights)(clips, phase, torch.rand)
    return result


def gradients(model: VaporTok, result: StepResult) -> dict[str, float]:
    """Largest absolute gradient of each parameter; 0 where there is none."""
    model.zero_grad(set_to_none=True)
    result.loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in model.named_parameters()
    }


def test_continuous_reconstruction(model: VaporTok, clips: Tensor) -> None:
    result = evaluate(model, clips, CONTINUOUS)
    video = clips.double() / 255
    latents = model.encoder_latents(video.float())
    unit = latents @ model.bottleneck.in_linear.weight.T + model.bottleneck.in_linear.bias
    unit = unit / unit.norm(dim=-1, keepdim=True)
    error = model.reconstruct(unit).double() - video
    assert result.terms["l1"].item() == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert result.terms["squared_error"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert result.codes is None
    torch.testing.assert_close(result.unit, unit.detach(), rtol=1e-4, atol=1e-5)
    assert "commitment" not in result.terms
    assert result.terms["tokens"] == 8


def test_probability_prior(model: VaporTok, clips: Tensor) -> None:
    result = evaluate(model, clips, CONTINUOUS)
    policy = model.taildrop(model.encoder_latents(clips.float() / 255))
    score = model.complexity_scale.score(clip_complexity(clips))
    low, high = model.config.complexity.mean_range
    mean = 8 * (low + (high - low) * score)
    density = Normal(mean[:, None], 8 * model.config.complexity.deviation).log_prob(torch.arange(1.0, 9.0)).exp()
    expected = kl_divergence(policy, Categorical(probs=density)).mean()
    assert result.terms["probability"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_quantised_terms(model: VaporTok, clips: Tensor) -> None:
    result = evaluate(model, clips, QUANTIZED)
    encoded = model.encode(clips)
    codes = result.codes
    assert codes is not None
    assert torch.equal(codes, encoded.codes)
    unit = model.bottleneck.to_unit(encoded.latents)
    vectors = model.bottleneck.regularizer.lookup(codes)
    distance = (unit - vectors).square().mean().item()
    assert result.terms["commitment"].item() == pytest.approx(1.25 * distance, rel=1e-4)
    error = model.reconstruct(vectors) - clips.float() / 255
    assert result.terms["l1"].item() == pytest.approx(error.abs().mean().item(), rel=1e-4)
    log_p = model.prior_logits(codes).double().log_softmax(-1)
    picked = [-log_p[clip, label - 1, codes[clip, label]] for clip in range(6) for label in range(1, 8)]
    assert result.terms["representation"].item() == pytest.approx(sum(picked).item() / len(picked), rel=1e-4)  # type: ignore[union-attr]
    best = model.prior_logits(codes).topk(5).indices
    hits = (best == codes[:, 1:, None]).any(-1).float().mean().item()
    assert result.terms["prior_top5"].item() == pytest.approx(hits)


class Verdict(torch.nn.Module):
    """A discriminator with known logits."""

    def forward(self, video: Tensor) -> Tensor:
        return video.flatten(1).mean(1, keepdim=True) * 3


def distance(first: Tensor, second: Tensor) -> Tensor:
    """A perceptual distance with known values."""
    return (first - second).square().flatten(1).sum(1)


@pytest.mark.parametrize("name", [entry.name for entry in fields(LossWeights)])
def test_each_weight_weighs_its_term(model: VaporTok, clips: Tensor, name: str) -> None:
    weights = replace(NOTHING, **{name: 0.7, "l1": 0.3 + 0.4 * (name == "l1")})
    phase = replace(QUANTIZED, random_lengths=True, adversarial=True)
    torch.manual_seed(0)
    result: StepResult = CompleteLoss(model, weights, distance, Verdict())(clips, phase, torch.rand)
    terms = {key: value.item() for key, value in result.terms.items()}
    expected = 0.7 * terms[name] + (0.3 * terms["l1"] if name != "l1" else 0)
    assert result.loss.item() == terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in result.terms.values())


def test_half_quantised_latents_lie_between(model: VaporTok, clips: Tensor) -> None:
    seen: list[Tensor] = []
    reconstruct = model.reconstruct

    def spy(vectors: Tensor, n_tokens: Tensor | None = None) -> Tensor:
        seen.append(vectors.detach())
        return reconstruct(vectors, n_tokens)

    model.reconstruct = spy  # type: ignore[method-assign]
    result = evaluate(model, clips, replace(QUANTIZED, quantized_share=0.5))
    assert result.codes is not None
    quantized = (seen[0] - model.bottleneck.regularizer.lookup(result.codes)).abs().amax(-1) < 1e-6
    continuous = (seen[0] - result.unit).abs().amax(-1) < 1e-6
    assert bool((quantized | continuous).all())
    assert 0.25 < quantized.float().mean() < 0.75


def test_lengths_hide_tokens_from_decoder_and_prior(
    model: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = torch.tensor([1, 2, 3, 5, 8, 8])
    monkeypatch.setattr(loss, "training_lengths", lambda *_, **options: lengths)
    result = evaluate(model, clips, replace(QUANTIZED, random_lengths=True))
    codes = model.encode(clips).codes
    vectors = model.bottleneck.regularizer.lookup(codes)
    errors = [
        (model.reconstruct(vectors[row : row + 1, :n])[0] - clips[row].float() / 255).abs().mean().item()
        for row, n in enumerate(lengths.tolist())
    ]
    assert result.terms["l1"].item() == pytest.approx(sum(errors) / 6, rel=1e-4)
    log_p = model.prior_logits(codes).log_softmax(-1)
    picked = [
        -log_p[row, label - 1, codes[row, label]].item()
        for row, n in enumerate(lengths.tolist())
        for label in range(1, n)
    ]
    assert result.terms["representation"].item() == pytest.approx(sum(picked) / len(picked), rel=1e-4)
    assert result.terms["tokens"].item() == pytest.approx(lengths.float().mean().item())


def test_lengths_are_drawn_from_the_policy_but_for_the_phases_shares(model: VaporTok, clips: Tensor) -> None:
    with torch.no_grad():  # so sure a policy that other lengths come from the shares alone
        model.taildrop_module.head.weight.zero_()
        model.taildrop_module.head.bias.copy_(100.0 * (torch.arange(8) == 2))
    many = clips.repeat(100, 1, 1, 1, 1)
    for uniform, full, expected in ((0.0, 0.0, 3), (1.0, 0.0, 4.5), (0.0, 1.0, 8), (0.5, 0.25, 0.5 * 4.5 + 2.75)):
        phase = replace(QUANTIZED, random_lengths=True, length_mixture=(1 - uniform - full, uniform, full))
        result = evaluate(model, many, phase, NOTHING)
        assert result.terms["tokens"].item() == pytest.approx(expected, abs=0.3 if uniform else 1e-6)


def test_clips_of_similar_length_decoded_together_give_what_masks_give(model: VaporTok, clips: Tensor) -> None:
    n_tokens = torch.tensor([5, 1, 8, 2, 2, 7])
    vectors = torch.randn(6, 8, model.config.code_width).requires_grad_()
    found, expected = (
        (decoded := decode(vectors, n_tokens), torch.autograd.grad(decoded.square().sum(), vectors)[0])
        for decode in (CompleteLoss(model, NOTHING)._decoded, model.reconstruct)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    longest = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "reconstruct", lambda some, lengths: longest.append(some.shape[1]) or some[:, 0])
        CompleteLoss(model, NOTHING)._decoded(vectors, n_tokens)
    assert longest == [2, 5, 8]


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_probability_prior_reaches_the_encoder_only_if_asked(
    model: VaporTok, clips: Tensor, stop_gradient: bool
) -> None:
    config = replace(model.config, taildrop=replace(model.config.taildrop, stop_gradient=stop_gradient))
    chosen = VaporTok(config)
    chosen.load_state_dict(model.state_dict())
    largest = gradients(chosen, evaluate(chosen, clips, QUANTIZED, replace(NOTHING, probability=1.0)))
    assert largest["taildrop_module.head.weight"] > 0
    assert (largest["encoder_latent_query_embed"] > 0) is not stop_gradient
    assert largest["final_layer.linear.weight"] == 0


def test_representation_prior_reaches_encoder_and_prior_but_not_the_codebook(model: VaporTok, clips: Tensor) -> None:
    largest = gradients(model, evaluate(model, clips, QUANTIZED, replace(NOTHING, representation=1.0)))
    assert largest["prior_model.head.weight"] > 0
    assert largest["encoder_latent_query_embed"] > 0
    assert largest["bottleneck.regularizer.embedding.weight"] == 0
    assert largest["final_layer.linear.weight"] == 0


def test_commitment_pulls_the_codes_four_times_as_hard_as_the_latents(model: VaporTok, clips: Tensor) -> None:
    result = evaluate(model, clips, QUANTIZED, replace(NOTHING, commitment=1.0))
    largest = gradients(model, result)
    assert not any(largest[name] for name in ("prior_model.head.weight", "taildrop_module.head.weight"))
    parameters = {
        name: model.get_parameter(f"bottleneck.{name}") for name in ("regularizer.embedding.weight", "in_linear.weight")
    }
    found = {name: value.grad for name, value in parameters.items()}
    assert result.codes is not None
    own = model.bottleneck.regularizer.lookup(result.codes)
    unit = model.bottleneck.to_unit(model.encoder_latents(clips.float() / 255))
    distance = (own - unit).square().mean()
    for (name, value), weight in zip(parameters.items(), (1.0, 0.25), strict=True):
        (expected,) = torch.autograd.grad(distance, value, retain_graph=True)
        torch.testing.assert_close(found[name], weight * expected, rtol=1e-3, atol=1e-8)


def test_the_prior_learns_from_every_round_of_sampling(
    model: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    right = loss.scheduled_sampling_logits

    def spy(*given: Any, **options: Any) -> list[Tensor]:
        seen.extend(right(*given, **options))
        return seen

    monkeypatch.setattr(loss, "scheduled_sampling_logits", spy)
    result = evaluate(model, clips, replace(QUANTIZED, sampling_ratio=0.9, sampling_rounds=3))
    assert result.codes is not None
    picked = [-logits.log_softmax(-1).gather(-1, result.codes[:, 1:, None]).mean().item() for logits in seen]
    assert len({round(value, 5) for value in picked}) == 3
    assert result.terms["representation"].item() == pytest.approx(sum(picked) / 3, rel=1e-5)


def test_reconstruction_leaves_prior_and_policy_alone(model: VaporTok, clips: Tensor) -> None:
    largest = gradients(model, evaluate(model, clips, QUANTIZED, replace(NOTHING, l1=1.0)))
    assert largest["encoder_latent_query_embed"] > 0  # straight through the quantiser
    assert largest["bottleneck.regularizer.embedding.weight"] == 0
    assert all(value == 0 for name, value in largest.items() if name.startswith(("prior_model", "taildrop_module")))


def test_critics_enter_with_their_weights(model: VaporTok, clips: Tensor) -> None:
    phase = replace(QUANTIZED, adversarial=True)
    weights = replace(NOTHING, perceptual=0.3, adversarial=0.7)
    torch.manual_seed(0)
    result: StepResult = CompleteLoss(model, weights, distance, Verdict())(clips, phase, torch.rand)
    video, decoded = clips.double() / 255, result.decoded.double()
    perceptual = (decoded - video).square().flatten(1).sum(1).mean().item()
    logits = decoded.flatten(1).mean(1) * 3
    adversarial = sum(math.log(1 + math.exp(-value)) for value in logits.tolist()) / len(clips)
    assert result.terms["perceptual"].item() == pytest.approx(perceptual, rel=1e-4)
    assert result.terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-4)
    assert result.loss.item() == pytest.approx(0.3 * perceptual + 0.7 * adversarial, rel=1e-4)
    quiet = CompleteLoss(model, weights, distance, Verdict())(clips, QUANTIZED, torch.rand)
    assert "adversarial" not in quiet.terms


def test_codes_are_drawn_or_the_nearest(tiny: VaporTok, clips: Tensor) -> None:
    hot = VaporTok(replace(tiny.config, quantizer_temperature=10.0))
    hot.load_state_dict(tiny.state_dict())
    nearest = tiny.encode(clips).codes
    for sampled in (True, False):
        torch.manual_seed(0)
        result = CompleteLoss(hot.eval(), LossWeights(), sampled_codes=sampled)(clips, QUANTIZED, torch.rand)
        assert result.codes is not None
        assert torch.equal(result.codes, nearest) is not sampled
