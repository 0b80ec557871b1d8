"""The adversarial losses by closed form on hand-made logits; the discriminator's geometry, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer import PRESETS, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig
from vaportok_rl.tokenizer.pretraining.adversarial import (
    Critic,
    Discriminator,
    LeCamRegularizer,
    discriminator_loss,
    discriminator_sizes,
    generator_loss,
)

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


def test_losses_of_bfloat16_logits_are_float32() -> None:
    logits = torch.zeros(3, dtype=torch.bfloat16)
    regularizer = LeCamRegularizer()
    regularizer.update(logits.mean(), logits.mean())
    for loss in (generator_loss(logits), discriminator_loss(logits, logits), regularizer(logits, logits)):
        assert loss.dtype == torch.float32


def anchored(real: float, fake: float) -> LeCamRegularizer:
    regularizer = LeCamRegularizer()
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


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=12))
def test_running_means(means: list[tuple[float, float]]) -> None:
    regularizer, decay = LeCamRegularizer(), 0.999
    for real, fake in means:
        regularizer.update(torch.tensor(real), torch.tensor(fake))
    count = len(means)
    # Unrolled: the first mean weighs decay^(count-1), the k-th later one (1-decay)·decay^(count-1-k).
    weights = [decay ** (count - 1)] + [(1 - decay) * decay ** (count - 1 - k) for k in range(1, count)]
    assert sum(weights) == pytest.approx(1)
    for side, average in enumerate((regularizer.ema_real, regularizer.ema_fake)):
        expected = sum(weight * pair[side] for weight, pair in zip(weights, means, strict=True))
        assert average.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


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


@pytest.fixture
def discriminator(tiny_config: VaporTokConfig) -> Discriminator:
    """With a non-zero head, which starts at zero."""
    torch.manual_seed(0)
    built = Discriminator(tiny_config)
    nn.init.normal_(built.head.linear.weight)
    return built


@pytest.fixture
def video(clips: Tensor) -> Tensor:
    return clips.float() / 255


@pytest.mark.parametrize("preset", ["vaportok-b", "larp-l"])
def test_large_presets_get_larps_sizes(preset: str) -> None:
    assert discriminator_sizes(PRESETS[preset]) == (384, 8, 12)


@pytest.mark.parametrize(
    ("width", "heads", "depth", "expected"),
    [
        (128, 4, 4, (64, 3, 4)),
        (192, 3, 4, (96, 3, 3)),
        (36, 3, 1, (24, 1, 3)),  # half of 36 is 18, and 12 is the step of three heads and sin-cos positions
    ],
)
def test_derived_sizes(width: int, heads: int, depth: int, expected: tuple[int, int, int]) -> None:
    config = VaporTokConfig(width=width, heads=heads, encoder_depth=depth)
    assert discriminator_sizes(config) == expected


def test_one_logit_a_patch_and_no_opinion_before_training(tiny_config: VaporTokConfig, video: Tensor) -> None:
    torch.manual_seed(0)
    logits = Discriminator(tiny_config)(video)
    assert torch.equal(logits, torch.zeros(6, tiny_config.patches))


def test_without_blocks_a_logit_belongs_to_its_patch(discriminator: Discriminator, video: Tensor) -> None:
    discriminator.trunk.blocks = nn.ModuleList()
    video.requires_grad_()
    time, height, width = 1, 2, 2  # patches of the tiny geometry, 4 × 8 × 8 pixels each
    for patch in range(time * height * width):
        (gradient,) = torch.autograd.grad(discriminator(video)[:, patch].sum(), video)
        touched = rearrange(
            gradient.abs(), "b c (t dt) (h dy) (w dx) -> (t h w) (b c dt dy dx)", t=time, h=height, w=width
        ).amax(1)
        assert touched[patch] > 0
        assert touched.sum() == touched[patch]


def test_blocks_let_every_patch_see_the_whole_clip(discriminator: Discriminator, video: Tensor) -> None:
    video.requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(video)[0, 0], video)
    assert bool((gradient[0].abs().amax(dim=(0, 1)) > 0).all())
    assert not gradient[1:].any()  # and no other clip


def test_position_matters(discriminator: Discriminator, video: Tensor) -> None:
    swapped = video.roll(8, dims=-1)  # the same patches in other places
    there, back = discriminator(video).sort(dim=1).values, discriminator(swapped).sort(dim=1).values
    assert (there - back).abs().max() > 1e-3


def test_bfloat16_autocast_gives_float32_logits(discriminator: Discriminator, video: Tensor) -> None:
    exact = discriminator(video)
    with torch.autocast("cpu", torch.bfloat16):
        rough = discriminator(video)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_wrong_geometry(discriminator: Discriminator, video: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, 4, 16, 16\], got \(6, 3, 4, 16, 8\)"):
        discriminator(video[..., :8])


def test_learns_to_tell_noise_from_constants(tiny_config: VaporTokConfig) -> None:
    torch.manual_seed(0)
    built = Discriminator(replace(tiny_config, width=64, encoder_depth=3))
    optimizer = torch.optim.Adam(built.parameters(), lr=3e-3)

    def batch(size: int) -> tuple[Tensor, Tensor]:
        level = torch.rand(size, 3, 1, 1, 1).expand(size, *tiny_config.clip_shape)
        return level, torch.rand(size, *tiny_config.clip_shape)

    for _ in range(40):
        loss = discriminator_loss(*(built(clips) for clips in batch(16)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = (built(clips).mean(1) for clips in batch(64))  # unseen
    right = torch.cat([real > 0, fake < 0]).float().mean()
    assert right > 0.95


def test_the_critic_descends_both_losses_with_the_weights_of_its_settings(
    tiny_config: VaporTokConfig, clips: Tensor
) -> None:
    torch.manual_seed(0)
    critic = Critic(tiny_config, PretrainConfig(label_smoothing=0.3, lecam=0.7), torch.device("cpu"), Processes())
    decoded = torch.rand(clips.shape, generator=torch.Generator().manual_seed(3))
    nn.init.normal_(critic.discriminator.head.linear.weight)
    bias = critic.discriminator.head.linear.bias
    real, fake = (critic.discriminator(video).detach().double() for video in (clips.float() / 255, decoded))
    means = [0.0, 0.0]  # of real and reconstructed clips, as in the regularisation
    for started in (0, 1):
        critic.zero_grad()
        for some in zip(clips.chunk(2), decoded.chunk(2), strict=True):
            critic.compute_gradients(*some, parts=2)
        assert bias.grad is not None
        slope = (real.sigmoid() - 0.7).mean() + fake.sigmoid().mean()
        lecam = 2 * ((real - means[1]).relu().mean() - (means[0] - fake).relu().mean())
        assert bias.grad.item() == pytest.approx((slope + started * 0.7 * lecam).item(), rel=1e-4)
        assert abs(lecam) > 0.01
        critic.update(0.0)  # no step, but an update of the means
        means = [real.mean().item(), fake.mean().item()]
    assert critic.regularizer.ema_real.item() == pytest.approx(means[0], rel=1e-4)
    assert critic.regularizer.ema_fake.item() == pytest.approx(means[1], rel=1e-4)


def test_nothing_is_read_back_from_the_device(tiny_config: VaporTokConfig) -> None:
    # Forward only: without a GPU autograd cannot walk even a pretended one.
    with FakeTensorMode(), torch.device("cuda"):
        built, regularizer = Discriminator(tiny_config), LeCamRegularizer()
        clips, decoded = torch.rand(2, 2, *tiny_config.clip_shape)
        generator = generator_loss(built(decoded))
        real, fake = built(torch.cat([clips, decoded])).chunk(2)
        loss = discriminator_loss(real, fake, 0.1) + 0.001 * regularizer(real, fake)
        regularizer.update(real.mean(), fake.mean())
    for tensor in (generator, loss, regularizer.ema_real, regularizer.ema_fake, regularizer.started):
        assert tensor.device.type == "cuda"
