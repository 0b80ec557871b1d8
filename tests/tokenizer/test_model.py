"""The whole tokenizer: dropped tokens, inputs and outputs, and freezing."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.tokenizer import PRESETS, VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.transformer import PatchEmbedding


def random_codes(model: VaporTok, clips: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.codebook_size, (clips, model.config.tokens), generator=generator)


def other(model: VaporTok, codes: Tensor, tokens: slice) -> Tensor:
    changed = codes.clone()
    changed[:, tokens] = (changed[:, tokens] + 7) % model.config.codebook_size
    return changed


def test_shapes_and_types(tiny: VaporTok, clips: Tensor) -> None:
    encoded = tiny.encode(clips)
    assert (encoded.latents.shape, encoded.latents.dtype) == ((6, 8, 16), torch.float32)
    assert (encoded.codes.shape, encoded.codes.dtype) == ((6, 8), torch.int64)
    video = tiny.decode(encoded.codes)
    assert (video.shape, video.dtype) == (clips.shape, torch.float32)
    assert video.min() >= 0
    assert video.max() <= 1
    assert tiny.prior_logits(encoded.codes).shape == (6, 7, 32)
    assert tiny.taildrop(encoded.latents).probs.shape == (6, 8)
    assert encoded.codes.unique().numel() > 4  # or nothing below would be tested


def test_clips_do_not_see_each_other(tiny: VaporTok, clips: Tensor) -> None:
    together = tiny.encode(clips)
    n_tokens = torch.tensor([1, 3, 8, 5, 2, 8])
    video = tiny.decode(together.codes, n_tokens)
    for row in range(6):
        alone = tiny.encode(clips[row : row + 1])
        torch.testing.assert_close(alone.latents[0], together.latents[row], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone.codes[0], together.codes[row])
        decoded = tiny.decode(alone.codes, n_tokens[row : row + 1])
        torch.testing.assert_close(decoded[0], video[row], rtol=0, atol=1e-5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the model is only read
@given(st.data(), st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 6))
def test_masked_tokens_are_removed_tokens_for_any_lengths(
    tiny: VaporTok, data: st.DataObject, seed: int, tokens: int, batch: int
) -> None:
    lengths = data.draw(st.lists(st.integers(1, tokens) | st.sampled_from([1, tokens]), min_size=batch, max_size=batch))
    codes = random_codes(tiny, batch, seed)[:, :tokens]
    masked = tiny.decode(codes, torch.tensor(lengths))
    # The values at dropped positions do not matter either.
    noise = random_codes(tiny, batch, seed + 1)[:, :tokens]
    kept = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    assert torch.equal(tiny.decode(torch.where(kept, codes, noise), torch.tensor(lengths)), masked)
    for row, n in enumerate(lengths):
        removed = tiny.decode(codes[row : row + 1, :n])[0]
        torch.testing.assert_close(masked[row], removed, rtol=0, atol=2e-5)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("n", range(1, 9))
def test_exactly_the_first_n_tokens_matter(tiny: VaporTok, n: int, as_tensor: bool) -> None:
    codes = random_codes(tiny, 3)
    n_tokens: int | Tensor = torch.full((3,), n) if as_tensor else n
    before = tiny.decode(codes, n_tokens)
    assert torch.equal(tiny.decode(other(tiny, codes, slice(n, None)), n_tokens), before)
    last_kept = tiny.decode(other(tiny, codes, slice(n - 1, n)), n_tokens)
    assert bool(((last_kept - before).abs().flatten(1).amax(1) > 1e-3).all())


def test_patch_embedding_is_the_convolution(tiny_config: VaporTokConfig) -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding(replace(tiny_config, frames=8))
    clips = torch.rand(2, 3, 8, 16, 16)
    expected = embedding.proj(clips).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(clips), expected)


def test_unpatchify_puts_every_value_in_its_place(tiny_config: VaporTokConfig) -> None:
    config = replace(tiny_config, frames=8, pixel_range="unit")
    model = VaporTok(config)
    # Patches that already hold their pixels, numbered (dt, dy, dx, c) with c fastest.
    model.final_layer = torch.nn.Identity()  # type: ignore[assignment]
    numbered = torch.arange(config.patches * config.patch_values, dtype=torch.float32)
    patches = numbered.reshape(1, config.patches, config.patch_values)

    class Fixed(torch.nn.Module):
        def forward(self, x: Tensor, visible: Tensor | None, wanted: slice) -> Tensor:
            return torch.cat([torch.zeros(1, 8, config.patch_values), patches], dim=1)[:, wanted]

    model.decoder = Fixed()  # type: ignore[assignment]
    video = model.reconstruct(torch.zeros(1, 8, config.code_width))
    _, height, width = config.grid
    for c, t, y, x in ((0, 0, 0, 0), (2, 5, 9, 3), (1, 3, 7, 8), (2, 7, 15, 15)):
        patch = ((t // 4) * height + y // 8) * width + x // 8
        value = ((t % 4 * 8 + y % 8) * 8 + x % 8) * 3 + c
        assert video[0, c, t, y, x] == patch * config.patch_values + value


def test_overlapping_patches_are_added_where_they_meet(tiny_config: VaporTokConfig) -> None:
    config = replace(tiny_config, frames=8, output_overlap=2)
    (time, height, width), side = config.grid, 12
    pixels = torch.randn(2, config.patches, config.patch_values, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 3, 8, 16 + 4, 16 + 4)
    for place, (t, y, x) in enumerate(itertools.product(range(time), range(height), range(width))):
        patch = pixels[:, place].view(2, 4, side, side, 3).permute(0, 4, 1, 2, 3)
        expected[:, :, 4 * t : 4 * t + 4, 8 * y : 8 * y + side, 8 * x : 8 * x + side] += patch
    assembled = VaporTok(replace(config, pixel_range="unit")).assemble(pixels)
    torch.testing.assert_close(assembled, expected[..., 2:-2, 2:-2])


def test_pixel_ranges(tiny: VaporTok, clips: Tensor) -> None:
    # With a symmetric range the network sees and gives -1…1; the outside is the same.
    unit = VaporTok(replace(tiny.config, pixel_range="unit")).freeze()
    unit.load_state_dict(tiny.state_dict())
    video = clips.float() / 255
    torch.testing.assert_close(tiny.encoder_latents(video), unit.encoder_latents(2 * video - 1))
    vectors = tiny.bottleneck.regularizer.lookup(random_codes(tiny, 2))
    torch.testing.assert_close(2 * tiny.reconstruct(vectors) - 1, unit.reconstruct(vectors), rtol=1e-5, atol=1e-5)


def test_an_untrained_model_decodes_to_a_constant(tiny_config: VaporTokConfig) -> None:
    for pixel_range, level in (("unit", 0.0), ("symmetric", 0.5)):
        model = VaporTok(replace(tiny_config, pixel_range=pixel_range))  # type: ignore[arg-type]
        assert model.decode(random_codes(model, 2)).eq(level).all()


def test_initialisation_is_that_of_larp_but_for_the_encoder_queries(tiny_config: VaporTokConfig) -> None:
    torch.manual_seed(0)
    model = VaporTok(replace(tiny_config, width=64, codebook_size=512))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all(), name
        elif "norm" in name or ".ln" in name:
            assert parameter.eq(1).all(), name
        elif name in ("final_layer.linear.weight", "taildrop_module.head.weight"):
            assert parameter.eq(0).all(), name
        elif name.endswith((".pos_emb", "_embed", ".query")):
            scale = 1.0 if name == "encoder_latent_query_embed" else 0.02
            assert parameter.std().item() == pytest.approx(scale, rel=0.3), name
        elif parameter.dim() == 2 and "embedding" not in name:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name


def test_freezing_stops_gradients_and_randomness(tiny_config: VaporTokConfig, clips: Tensor) -> None:
    model = VaporTok(tiny_config)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    frozen = model.freeze()
    assert frozen is model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model.encode(clips), model.encode(clips)
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.codes, second.codes)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_differentiable_paths_have_gradients(tiny: VaporTok, clips: Tensor) -> None:
    tiny.requires_grad_(True)
    latents = tiny.encoder_latents(clips.float() / 255)
    video = tiny.reconstruct(tiny.bottleneck.quantize(latents).vectors, torch.tensor([1, 2, 3, 4, 5, 8]))
    video.square().mean().backward()  # type: ignore[no-untyped-call]
    for name in ("x_embedder.proj.weight", "encoder_latent_query_embed", "decoder_patch_query_token_type_embed"):
        gradient = tiny.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0
    assert not tiny.encode(clips).latents.requires_grad
    assert not tiny.decode(tiny.encode(clips).codes).requires_grad


def test_bfloat16_is_close_and_gives_float32(tiny: VaporTok, clips: Tensor) -> None:
    half = VaporTok(tiny.config, "bfloat16").freeze()
    half.load_state_dict(tiny.state_dict())
    encoded, exact = half.encode(clips), tiny.encode(clips)
    assert encoded.latents.dtype == torch.float32
    similarity = F.cosine_similarity(encoded.latents, exact.latents, dim=-1)
    assert similarity.min() > 0.99
    assert not torch.equal(encoded.latents, exact.latents)
    video = half.decode(exact.codes, torch.tensor([1, 2, 3, 4, 5, 8]))
    assert video.dtype == torch.float32
    assert (video - tiny.decode(exact.codes, torch.tensor([1, 2, 3, 4, 5, 8]))).abs().mean() < 0.02
    assert half.prior_logits(exact.codes).dtype == torch.float32
    assert half.taildrop(exact.latents).logits.dtype == torch.float32


def test_an_unknown_precision_is_refused(tiny_config: VaporTokConfig) -> None:
    with pytest.raises(ValueError, match="'float32' or 'bfloat16', got 'float16'"):
        VaporTok(tiny_config, "float16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, c: m.encode(torch.zeros(1, 3, 4, 16, 8)), "[B, 3, 4, 16, 16]"),
        (lambda m, c: m.decode(c[0]), "got torch.int64 of shape (8,)"),
        (lambda m, c: m.decode(torch.cat([c, c], 1)), "1 ≤ N ≤ 8, got torch.int64 of shape (3, 16)"),
        (lambda m, c: m.decode(c[:, :0]), "got torch.int64 of shape (3, 0)"),
        (lambda m, c: m.decode(c.float()), "int64 codes [B, N] with 1 ≤ N ≤ 8, got torch.float32"),
        (lambda m, c: m.decode(c + 1000), "codes in 0…31"),
        (lambda m, c: m.decode(c - 1000), "codes in 0…31"),
        (lambda m, c: m.prior_logits(c[0]), "int64 codes [B, N]"),
        (lambda m, c: m.prior_logits(torch.cat([c, c], 1)), "1 ≤ N ≤ 8"),
        (lambda m, c: m.prior_logits(c + 1000), "codes in 0…31"),
        (lambda m, c: m.decode(c, 0), "n_tokens in 1…8, got 0"),
        (lambda m, c: m.decode(c, 9), "n_tokens in 1…8, got 9"),
        (lambda m, c: m.decode(c[:, :4], 5), "n_tokens in 1…4, got 5"),
        (lambda m, c: m.decode(c, torch.tensor([1, 2])), "n_tokens of shape (3,)"),
        (lambda m, c: m.decode(c, torch.tensor(2)), "n_tokens of shape (3,)"),
        (lambda m, c: m.decode(c, torch.tensor([1, 0, 3])), "n_tokens in 1…8, got 0…3"),
        (lambda m, c: m.decode(c, torch.tensor([1, 9, 3])), "n_tokens in 1…8, got 1…9"),
    ],
)
def test_misuse_is_explained(tiny: VaporTok, call: Callable[[VaporTok, Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(tiny, random_codes(tiny, 3))


@pytest.mark.parametrize("preset", ["nano", "small"])
def test_tokens_begin_far_apart(preset: str) -> None:
    """Queries and decoder positions of neighbours; where they are nearly equal, tokens come to repeat one another."""
    torch.manual_seed(0)
    model = VaporTok(replace(PRESETS[preset], encoder_depth=1, decoder_depth=1))
    for table, most, scale in (
        (model.encoder_latent_query_embed, 0.05, 1.0),
        (model.decoder_latent_pe[0], 0.95, 0.5**0.5),
    ):
        assert F.cosine_similarity(table[1:], table[:-1], dim=1).mean() < most
        torch.testing.assert_close(table.square().mean().sqrt(), torch.tensor(scale), atol=0.02, rtol=0)
