"""LARP's tokenizers become ours: arguments to configuration, learned tables to ours, other variants refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.tokenizer import PRESETS, ComplexityConfig, PriorConfig, VaporTok, VaporTokConfig, load_checkpoint
from vaportok_rl.tokenizer.files.larp import import_larp, is_larp

# Fixtures of tests/tokenizer/conftest.py; what is there cannot be imported by name.
Larp = Any
WriteFolder = Callable[..., Path]

REGULARIZER = "bottleneck.args.regularizer.args."


def change(arguments: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for key in parents:
        arguments = arguments[key]
    arguments[last] = value


def random_like(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_configuration(larp: Larp) -> None:
    config, state = import_larp(larp.arguments, larp.state)
    assert config == larp.config
    assert state.keys() == larp.state.keys()
    assert all(state[name] is value for name, value in larp.state.items())


def test_what_larp_does_not_spell_out_has_its_defaults(larp: Larp) -> None:
    arguments = {name: larp.arguments[name] for name in ("bottleneck", "prior_model")}
    change(arguments, "prior_model.name", "gptc-S")
    change(arguments, "prior_model.latent_ce_temperature", 0.5)
    change(arguments, "prior_model.no_dropout", True)
    config, state = import_larp(arguments, {})
    assert (config.frames, config.size, config.tokens, config.width, config.heads) == (16, 128, 1024, 768, 12)
    # Six blocks a side are LARP's default; its released configurations state twelve.
    assert (config.encoder_depth, config.decoder_depth) == (6, 6)
    assert config.prior == PriorConfig(12, 6, 384, 1024, dropout=0.0, temperature=0.5)
    assert state.keys() == {"decoder_patch_query_token_type_embed"}


def test_the_released_configuration_is_the_preset(larp: Larp) -> None:
    released: dict[str, Any] = {
        **larp.arguments,
        "bottleneck_token_num": 1024,
        "input_size": 128,
        "frame_num": 16,
        "temporal_patch_size": 4,
        "patch_size": 8,
        **{f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("hidden_size", 768), ("depth", 12))},
        "encoder_num_heads": 12,
        "decoder_num_heads": 12,
    }
    change(released, "bottleneck.args.bottleneck_dim", 16)
    change(released, f"{REGULARIZER}codebook_size", 8192)
    change(released, "prior_model.name", "gptc-S")
    assert import_larp(released, {})[0] == PRESETS["larp-l"]


@pytest.mark.parametrize("settings", [{}, [], None, VaporTokConfig().to_dict(), {"bottleneck": {}}])
def test_other_configurations_are_not_larp_s(settings: object) -> None:
    assert not is_larp(settings)


def test_a_loaded_tokenizer_is_a_frozen_world(larp: Larp, hub_folder: WriteFolder, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path, larp.arguments, larp.state)
    random = torch.get_rng_state()
    world = VaporTok.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), random)
    assert not world.training
    assert not any(parameter.requires_grad for parameter in world.parameters())
    state = world.state_dict()
    assert all(torch.equal(state[name], value) for name, value in larp.state.items())
    # The module that LARP lacks: every length equally likely, and the same each time.
    latents = world.encode(torch.rand(2, 3, 8, 16, 16)).latents
    torch.testing.assert_close(world.taildrop(latents).probs, torch.full((2, 6), 1 / 6))
    torch.rand(7)
    again = load_checkpoint(folder).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    assert world.config.complexity == ComplexityConfig()


def test_a_trainable_tokenizer_takes_its_weights(larp: Larp, hub_folder: WriteFolder, tmp_path: Path) -> None:
    world = load_checkpoint(hub_folder(tmp_path, larp.arguments, larp.state))
    model = VaporTok(replace(world.config, complexity=ComplexityConfig((0.0, 1.0, 2.0), (0.0, 3.0))))
    model.load_state_dict(world.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training
    clips = torch.rand(2, 3, 8, 16, 16)
    assert torch.equal(model.eval().encode(clips).codes, world.encode(clips).codes)


class TestFolding:
    """Tables that LARP can learn are added where LARP adds them."""

    def test_learned_patch_positions(self, larp: Larp) -> None:
        rows, columns, times = random_like(1, 1, 2, 1, 16), random_like(1, 1, 1, 2, 16), random_like(1, 2, 1, 1, 16)
        state = dict(larp.state)
        for flag, table, names in (
            ("learned_encoder_patch_pe", "encoder_patch_pe", ("encoder_h_embed", "encode_w_embed", "encoder_t_embed")),
            (
                "learned_decoder_patch_query_embed",
                "decoder_patch_query_embed",
                ("decoder_h_embed", "decoder_w_embed", "decoder_t_embed"),
            ),
        ):
            larp.arguments[flag] = True
            del state[table]
            state |= dict(zip(names, (rows, columns, times), strict=True))
        _, folded = import_larp(larp.arguments, state)
        assert folded.keys() == larp.state.keys()
        for table in ("encoder_patch_pe", "decoder_patch_query_embed"):
            for t in range(2):
                for y in range(2):
                    for x in range(2):
                        wanted = rows[0, 0, y, 0] + columns[0, 0, 0, x] + times[0, t, 0, 0]
                        assert torch.equal(folded[table][0, (t * 2 + y) * 2 + x], wanted)

    @pytest.mark.parametrize(
        ("part", "table"),
        [
            ("encoder_patch", "encoder_patch_pe"),
            ("encoder_latent_query", "encoder_latent_query_embed"),
            ("decoder_latent", "decoder_latent_pe"),
        ],
    )
    def test_token_types(self, larp: Larp, part: str, table: str) -> None:
        larp.arguments[f"use_{part}_token_type_embed"] = True
        embedding = random_like(1, 1, 16)
        _, folded = import_larp(larp.arguments, {**larp.state, f"{part}_token_type_embed": embedding})
        assert folded.keys() == larp.state.keys()
        assert torch.equal(folded[table], larp.state[table] + embedding[0, 0])

    def test_no_type_of_patch_queries(self, larp: Larp) -> None:
        name = "decoder_patch_query_token_type_embed"
        larp.arguments[f"use_{name}"] = False
        given = larp.state.pop(name)
        _, folded = import_larp(larp.arguments, larp.state)
        assert torch.equal(folded[name], torch.zeros(1, 1, 16))
        with pytest.raises(ValueError, match=f"Expected no {name}"):
            import_larp(larp.arguments, {**larp.state, name: given})

    def test_patches_of_one_frame(self, larp: Larp, hub_folder: WriteFolder, tmp_path: Path) -> None:
        larp.arguments.update(frame_num=2, temporal_patch_size=1, decoder_temporal_patch_size=1)
        larp.state["x_embedder.proj.weight"] = kernel = random_like(16, 3, 8, 8)
        larp.state["final_layer.linear.weight"] = random_like(192, 16)
        larp.state["final_layer.linear.bias"] = random_like(192)
        world = load_checkpoint(hub_folder(tmp_path, larp.arguments, larp.state))
        clip = torch.rand(1, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
        bias = larp.state["x_embedder.proj.bias"]
        wanted = torch.cat([F.conv2d(clip[:, :, t], kernel, bias, stride=8).flatten(2) for t in range(2)], dim=2)
        torch.testing.assert_close(world.x_embedder(clip), wanted.mT, rtol=1e-5, atol=1e-4)

    def test_a_learned_quantiser_temperature(self, larp: Larp) -> None:
        change(larp.arguments, f"{REGULARIZER}stochastic_temperature", -1.0)
        name = "bottleneck.regularizer.stochastic_temperature_inv"
        config, state = import_larp(larp.arguments, {**larp.state, name: torch.tensor(8.0)})
        assert config.quantizer_temperature == 1 / 8
        assert name not in state
        with pytest.raises(ValueError, match=f"{name} > 0, got nan"):
            import_larp(larp.arguments, {**larp.state, name: torch.tensor(float("nan"))})
        with pytest.raises(ValueError, match=rf"floating-point {name} of shape \(\), .* got none"):
            import_larp(larp.arguments, larp.state)

    @pytest.mark.parametrize("table", [torch.zeros(1, 1, 3, 1, 16), torch.zeros(1, 1, 2, 1, 16, dtype=torch.int64)])
    def test_a_table_that_does_not_fit(self, larp: Larp, table: Tensor) -> None:
        larp.arguments["learned_encoder_patch_pe"] = True
        with pytest.raises(ValueError, match=r"encoder_h_embed of shape \(1, 1, 2, 1, 16\), .*belong to different"):
            import_larp(larp.arguments, {**larp.state, "encoder_h_embed": table})


class TestRefused:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("transformer_name", "transformer_encoder_fused", "encoder_name to be 'transformer_encoder_parallel'"),
            ("decoder_name", "transformer_encoder_fused", "decoder_name to be 'transformer_encoder_parallel'"),
            ("decoder_patch_size", 4, "decoder_patch_size to be 8, got 4"),
            ("decoder_temporal_patch_size", 2, "decoder_temporal_patch_size to be 4, got 2"),
            ("decoder_hidden_size", 32, "decoder_hidden_size to be 16, got 32"),
            ("decoder_num_heads", 4, "decoder_num_heads to be 2, got 4"),
            ("bottleneck.name", "fsq", "bottleneck.name to be 'bottleneck', got 'fsq'"),
            ("bottleneck.args.norm", "ln", "bottleneck.args.norm to be 'none', got 'ln'"),
            ("bottleneck.args.regularizer.name", "kl", "bottleneck.args.regularizer.name to be 'vq', got 'kl'"),
            (f"{REGULARIZER}l2_normalized", False, "l2_normalized to be True, got False"),
            (f"{REGULARIZER}stochastic", False, "stochastic to be True, got False"),
            (f"{REGULARIZER}stochastic_temperature", "warm", "stochastic_temperature to be a number, got 'warm'"),
            ("prior_model.args.l2_normalized", False, "prior_model.args.l2_normalized to be True, got False"),
            ("prior_model.name", "gptc-XL", "prior_model.name among gptc-L, gptc-B"),
            ("prior_model.name", "None", "Expected a LARP tokenizer with a prior"),
            ("prior_model", None, "Expected prior_model.name among LARP's arguments, got none"),
            ("bottleneck", "vq", "Expected bottleneck.name among LARP's arguments, got none"),
            (REGULARIZER[:-1], {}, f"Expected {REGULARIZER}l2_normalized among LARP's arguments, got none"),
            ("input_size", 20, "size divisible by patch_size=8, got 20"),
            ("encoder_depth", "two", "encoder_depth to be a whole number, got 'two'"),
            ("bottleneck_token_num", 2000, "tokens ≤ prior.positions + 1 = 1025, got 2000"),
        ],
    )
    def test_a_variant_without_an_equal(self, larp: Larp, path: str, value: object, message: str) -> None:
        change(larp.arguments, path, value)
        with pytest.raises(ValueError, match="Expected") as raised:
            import_larp(larp.arguments, larp.state)
        assert message in str(raised.value)

    def test_a_taildrop_module_that_larp_cannot_have(self, larp: Larp, hub_folder: WriteFolder, tmp_path: Path) -> None:
        state = VaporTok(import_larp(larp.arguments, larp.state)[0]).state_dict()
        with pytest.raises(ValueError, match=r"unknown \(first: taildrop_module"):
            load_checkpoint(hub_folder(tmp_path, larp.arguments, state))


def test_larp_l_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        model = VaporTok(PRESETS["larp-l"])
    counts = {"taildrop": 0, "prior": 0, "all": 0}
    for name, parameter in model.named_parameters():
        kind = name.partition("_")[0] if name.startswith(("taildrop_module.", "prior_model.")) else "all"
        counts[kind] += parameter.numel()
    assert counts["all"] == 172_179_984
    assert counts["prior"] == 21_700_240
    assert counts["all"] + counts["prior"] == 193_880_224
    buffers = sum(value.numel() for name, value in model.state_dict().items()) - sum(counts.values())
    assert buffers == 2_359_296
    assert sum(not name.startswith("taildrop_module.") for name in model.state_dict()) == 479


@pytest.mark.slow
def test_larp_l_runs() -> None:
    torch.manual_seed(0)
    config = PRESETS["larp-l"]
    model = VaporTok(config)
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.02)
    model.freeze()
    encoded = model.encode(torch.randint(256, (1, *config.clip_shape), dtype=torch.uint8))
    assert encoded.latents.shape == (1, 1024, 768)
    assert encoded.codes.shape == (1, 1024)
    logits = model.prior_logits(encoded.codes)
    assert logits.shape == (1, 1023, 8192)
    assert logits.isfinite().all()
    assert logits.abs().max() <= 1 + 1e-5
    for n_tokens in (None, 256):
        video = model.decode(encoded.codes, n_tokens)
        assert video.shape == (1, 3, 16, 128, 128)
        assert video.isfinite().all()
        assert video.std() > 0.01
