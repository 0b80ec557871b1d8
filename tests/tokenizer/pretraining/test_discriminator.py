"""The discriminator: its geometry, where its logits come from, and that it learns."""

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vaportok_rl.tokenizer import PRESETS, VaporTokConfig
from vaportok_rl.tokenizer.pretraining.adversarial import LeCamRegularizer, discriminator_loss, generator_loss
from vaportok_rl.tokenizer.pretraining.discriminator import Discriminator, DiscriminatorConfig


@pytest.fixture
def discriminator(tiny_config: VaporTokConfig) -> Discriminator:
    """With an opinion from the start: the head begins at zero."""
    torch.manual_seed(0)
    built = Discriminator(tiny_config)
    nn.init.normal_(built.head.linear.weight)
    return built


@pytest.fixture
def video(clips: Tensor) -> Tensor:
    return clips.float() / 255


@pytest.mark.parametrize("preset", ["vaportok-b", "larp-l"])
def test_large_presets_get_larps_sizes(preset: str) -> None:
    assert DiscriminatorConfig.for_tokenizer(PRESETS[preset]) == DiscriminatorConfig(384, 8, 12)
    assert DiscriminatorConfig(384, 8, 12) == DiscriminatorConfig()


@pytest.mark.parametrize(
    ("width", "heads", "depth", "expected"),
    [
        (128, 4, 4, (64, 3, 4)),
        (192, 3, 4, (96, 3, 3)),
        (36, 3, 1, (24, 1, 3)),  # half of 36 is 18, and 12 is the step of three heads and sin-cos positions
    ],
)
def test_derived_sizes(width: int, heads: int, depth: int, expected: tuple[int, int, int]) -> None:
    sizes = DiscriminatorConfig.for_tokenizer(VaporTokConfig(width=width, heads=heads, encoder_depth=depth))
    assert (sizes.width, sizes.depth, sizes.heads) == expected


@pytest.mark.parametrize("sizes", [(0, 1, 1), (8, 0, 1), (8, 1, 0), (6, 1, 1), (16, 1, 3)])
def test_impossible_sizes(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"got width {sizes[0]}, depth {sizes[1]}, heads {sizes[2]}"):
        DiscriminatorConfig(*sizes)


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


def test_deterministic_given_the_seed(tiny_config: VaporTokConfig, video: Tensor) -> None:
    outcomes = []
    for _ in range(2):
        torch.manual_seed(5)
        built = Discriminator(tiny_config)
        nn.init.normal_(built.head.linear.weight)
        outcomes.append(built(video))
    assert torch.equal(*outcomes)


def test_bfloat16_autocast_gives_float32_logits(discriminator: Discriminator, video: Tensor) -> None:
    exact = discriminator(video)
    with torch.autocast("cpu", torch.bfloat16):
        rough = discriminator(video)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_checkpoint_is_the_weights(discriminator: Discriminator, tiny_config: VaporTokConfig, video: Tensor) -> None:
    state = discriminator.state_dict()
    assert set(state) == {name for name, _ in discriminator.named_parameters()}
    other = Discriminator(tiny_config)
    other.load_state_dict(state)
    assert torch.equal(other(video), discriminator(video))


def test_wrong_geometry(discriminator: Discriminator, video: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, 4, 16, 16\], got \(6, 3, 4, 16, 8\)"):
        discriminator(video[..., :8])


def test_learns_to_tell_noise_from_constants(tiny_config: VaporTokConfig) -> None:
    torch.manual_seed(0)
    built = Discriminator(tiny_config, DiscriminatorConfig(width=32, depth=2, heads=2))
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
