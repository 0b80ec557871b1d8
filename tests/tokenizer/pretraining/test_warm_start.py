"""Which weights a warm start copies."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.warm_start import start_from


def test_every_weight_that_fits_is_taken_over(tiny: VaporTok) -> None:
    torch.manual_seed(1)
    geometry = replace(tiny.config, tokens=7, codebook_size=2 * tiny.config.codebook_size)
    model = VaporTok(geometry)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    left_out = start_from(model, tiny)
    assert set(left_out) == {
        *("bottleneck.regularizer.embedding.weight", "decoder_latent_pe", "encoder_latent_query_embed"),
        *("taildrop_module.head.bias", "taildrop_module.head.weight"),
    }
    for name, value in model.state_dict().items():
        kept = name in left_out or name.startswith("complexity_scale.")
        assert torch.equal(value, (before if kept else tiny.state_dict())[name]), name


def test_a_larp_tokenizer_has_no_taildrop_module(tiny: VaporTok) -> None:
    # As the rest of its state is of one geometry, everything else fits.
    state = {name: value for name, value in tiny.state_dict().items() if not name.startswith("taildrop_module.")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "state_dict", lambda: state)
        left_out = start_from(VaporTok(tiny.config), tiny)
    assert left_out
    assert all(name.startswith("taildrop_module.") for name in left_out)


def test_a_frozen_encoder_must_fit(tiny: VaporTok) -> None:
    model = VaporTok(replace(tiny.config, codebook_size=tiny.config.codebook_size * 2))
    with pytest.raises(ValueError, match=r"got bottleneck\.regularizer\.embedding\.weight of shape \(32, 4\)"):
        start_from(model, tiny, frozen_encoder=True)


def test_a_codebook_that_does_not_fit_is_placed_anew(
    tiny: VaporTok, tiny_config: VaporTokConfig, tmp_path: Path
) -> None:
    config = replace(FROZEN, frozen_encoder=False, steps=1, codebook_clips=8)
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    larger = replace(tiny_config, codebook_size=2 * tiny_config.codebook_size)
    run = Pretrainer(larger, config, clips, tmp_path, warm_start=tiny)
    assert run.left_out == ["bottleneck.regularizer.embedding.weight"]
    drawn = run.model.bottleneck.regularizer.embedding.weight.detach().clone()
    run.run()
    moved = (run.model.bottleneck.regularizer.embedding.weight - drawn).norm() / drawn.norm()
    assert moved > 0.5


def test_a_warm_run_keeps_the_given_codebook(tiny: VaporTok, tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    config = PretrainConfig(
        steps=2, batch_size=4, precision="float32", calibration_clips=8, continuous_until=0, quantized_from=0
    )
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    one = Pretrainer(tiny_config, config, clips, tmp_path, warm_start=tiny)
    given = tiny.bottleneck.regularizer.embedding.weight
    assert torch.equal(one.model.bottleneck.regularizer.embedding.weight, given)
    one.run()
    moved = (one.model.bottleneck.regularizer.embedding.weight - given).norm() / given.norm()
    assert 0 < moved < 0.1  # trained on from there, not placed anew
    assert one.model.config.complexity != tiny.config.complexity  # calibrated on these clips


FROZEN = PretrainConfig(
    steps=4,
    batch_size=4,
    precision="float32",
    calibration_clips=8,
    continuous_until=0,
    quantized_from=0,
    random_lengths_from=0,
    frozen_encoder=True,
    revive_every=1,
    decay_from=0.9,
    validate_every=2,
)


def test_a_frozen_encoder_keeps_every_code(tiny: VaporTok, tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    run = Pretrainer(tiny_config, FROZEN, clips, tmp_path, warm_start=tiny)
    run.run(validate=lambda model, step: None)
    fixed = ("x_embedder.", "encoder.", "encoder_latent", "bottleneck.in", "bottleneck.norm", "bottleneck.regularizer")
    for name, value in run.model.state_dict().items():
        if not name.startswith("complexity_scale."):
            same = torch.equal(value, tiny.state_dict()[name])
            assert same == (name.startswith(fixed) or name in dict(tiny.named_buffers())), name
    videos = clips.batch(range(40)).clips
    assert torch.equal(run.model.eval().encode(videos).codes, tiny.encode(videos).codes)
    held = {id(p) for optimizer in run.optimizers.values() for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(value) for name, value in run.model.named_parameters() if not name.startswith(fixed)}
    resumed = Pretrainer(tiny_config, FROZEN, clips, tmp_path, resume=True)
    assert not resumed.model.encoder.training


def test_a_frozen_encoder_comes_from_somewhere(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    with pytest.raises(ValueError, match="Expected a warm start with frozen_encoder, got none"):
        Pretrainer(tiny_config, FROZEN, clips, tmp_path)
