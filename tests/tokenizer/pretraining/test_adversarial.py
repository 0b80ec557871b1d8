"""The adversarial losses by closed form on hand-made logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.tokenizer.pretraining.adversarial import LeCamRegularizer, discriminator_loss, generator_loss

LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(LOGITS)
def test_generator_loss(fake: list[float]) -> None:
    expected = -sum(math.log(sigmoid(x)) for x in fake) / len(fake)
    assert generator_loss(torch.tensor(fake)).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(LOGITS, LOGITS, st.floats(0, 0.9))
def test_discriminator_loss(real: list[float], fake: list[float], smoothing: float) -> None:
    target = 1 - smoothing
    on_real = [-target * math.log(sigmoid(x)) - (1 - target) * math.log(sigmoid(-x)) for x in real]
    on_fake = [-math.log(sigmoid(-x)) for x in fake]
    expected = sum(on_real) / len(real) + sum(on_fake) / len(fake)
    result = discriminator_loss(torch.tensor(real), torch.tensor(fake), smoothing)
    assert result.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_no_opinion() -> None:
    zero = torch.zeros(2, 3)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_signs_and_saturation() -> None:
    real = torch.tensor([-30.0, 0.0, 1.0], requires_grad=True)
    fake = torch.tensor([-30.0, 0.0, 30.0], requires_grad=True)
    (push,) = torch.autograd.grad(generator_loss(fake), fake)
    # The tokenizer is pushed hardest where it is found out, and not at all where it deceives.
    torch.testing.assert_close(push, -torch.tensor([1.0, 0.5, 0.0]) / 3)
    on_real, on_fake = torch.autograd.grad(discriminator_loss(real, fake, 0.1), (real, fake))
    torch.testing.assert_close(on_real, (real.detach().sigmoid() - 0.9) / 3)
    torch.testing.assert_close(on_fake, fake.detach().sigmoid() / 3)


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.3])
def test_smoothing_bounds_the_confidence_on_real_clips_only(smoothing: float) -> None:
    best = math.log((1 - smoothing) / smoothing)
    logits = torch.linspace(best - 1, best + 1, 201, dtype=torch.float64)
    losses = torch.stack([discriminator_loss(logit, torch.tensor(0.0), smoothing) for logit in logits])
    assert logits[losses.argmin()].item() == pytest.approx(best, abs=0.02)
    (slope,) = torch.autograd.grad(
        discriminator_loss(x := torch.tensor(best, requires_grad=True), torch.tensor(0.0), smoothing), x
    )
    assert slope.item() == pytest.approx(0, abs=1e-6)
    fakes = [discriminator_loss(torch.tensor(0.0), torch.tensor(x), smoothing).item() for x in (0.0, -3.0, -9.0)]
    assert fakes == sorted(fakes, reverse=True)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_impossible_smoothing(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"smoothing in \[0, 1\), got"):
        discriminator_loss(torch.zeros(1), torch.zeros(1), smoothing)


def test_losses_of_bfloat16_logits_are_float32() -> None:
    logits = torch.zeros(3, dtype=torch.bfloat16)
    regularizer = LeCamRegularizer()
    regularizer.update(logits.mean(), logits.mean())
    for loss in (generator_loss(logits), discriminator_loss(logits, logits), regularizer(logits, logits)):
        assert loss.dtype == torch.float32


def anchored(real: float, fake: float, decay: float = 0.999) -> LeCamRegularizer:
    regularizer = LeCamRegularizer(decay)
    regularizer.update(torch.tensor(real), torch.tensor(fake))
    return regularizer


def test_lecam_closed_form() -> None:
    regularizer = anchored(real=2.0, fake=-1.0)
    real = torch.tensor([[3.0, 0.0], [-1.0, -4.0]], requires_grad=True)
    fake = torch.tensor([[-1.0, 5.0], [1.0, 2.0]], requires_grad=True)
    loss = regularizer(real, fake)
    assert loss.item() == pytest.approx((4**2 + 1**2) / 4 + (3**2 + 1**2) / 4)
    on_real, on_fake = torch.autograd.grad(loss, (real, fake))
    torch.testing.assert_close(on_real, torch.tensor([[2.0, 0.5], [0.0, 0.0]]))
    torch.testing.assert_close(on_fake, torch.tensor([[-1.5, 0.0], [-0.5, 0.0]]))


def test_lecam_equals_the_papers_squares_while_real_clips_score_higher() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.rand(4, 5, generator=generator) + 1, -torch.rand(4, 5, generator=generator)
    alpha_real, alpha_fake = 1.5, -0.5
    paper = (real - alpha_fake).square().mean() + (fake - alpha_real).square().mean()
    fake = fake.clamp(max=alpha_real)
    torch.testing.assert_close(anchored(alpha_real, alpha_fake)(real, fake), paper)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=12), st.floats(0, 0.999))
def test_running_means(means: list[tuple[float, float]], decay: float) -> None:
    regularizer = LeCamRegularizer(decay)
    for real, fake in means:
        regularizer.update(torch.tensor(real), torch.tensor(fake))
    count = len(means)
    # Unrolled: the first mean weighs decay^(count-1), the k-th later one (1-decay)·decay^(count-1-k).
    weights = [decay ** (count - 1)] + [(1 - decay) * decay ** (count - 1 - k) for k in range(1, count)]
    assert sum(weights) == pytest.approx(1)
    for side, average in enumerate((regularizer.ema_real, regularizer.ema_fake)):
        expected = sum(weight * pair[side] for weight, pair in zip(weights, means, strict=True))
        assert average.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_no_regularisation_before_the_first_update() -> None:
    logits = torch.ones(3, requires_grad=True)
    loss = LeCamRegularizer()(logits, -logits)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("updates_before", [0, 1])
def test_an_update_between_loss_and_backward_is_harmless(updates_before: int) -> None:
    gradients: list[Tensor] = []
    for early in (False, True):
        regularizer = LeCamRegularizer()
        for _ in range(updates_before):
            regularizer.update(torch.tensor(1.0), torch.tensor(-1.0))
        logits = torch.tensor([0.5, 2.0], requires_grad=True)
        loss = regularizer(logits, -logits)
        if early:
            regularizer.update(torch.tensor(9.0), torch.tensor(-9.0))
        loss.backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    assert torch.equal(*gradients)


def test_means_carry_no_graph_and_travel_in_checkpoints() -> None:
    regularizer = LeCamRegularizer()
    logits = torch.tensor([1.0, 3.0], requires_grad=True)
    regularizer.update(logits.mean(), -logits.mean())
    assert not regularizer.ema_real.requires_grad
    other = LeCamRegularizer()
    other.load_state_dict(regularizer.state_dict())
    for each in (regularizer, other):
        each.update(torch.tensor(0.0), torch.tensor(0.0))
    assert other.ema_real.item() == regularizer.ema_real.item() == pytest.approx(2 * 0.999)
    assert not list(regularizer.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_decay(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay in \[0, 1\), got"):
        LeCamRegularizer(decay)
