"""Which weights a warm start copies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.clips.loading import ClipLoader
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.warm_start import start_from

LOADER = ClipLoader(ProceduralClips(frames=4, size=16, length=4), 2, seed=0)


def test_everything_but_the_taildrop_module_is_taken_over(tiny: VaporTok) -> None:
    torch.manual_seed(1)
    model = VaporTok(tiny.config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, tiny, PretrainConfig(), LOADER)
    for name, value in model.state_dict().items():
        source = before if name.startswith("taildrop_module.") else tiny.state_dict()
        assert torch.equal(value, source[name]), name


def test_a_kept_taildrop_module_is_taken_over_and_trained_on(
    tiny: VaporTok, tiny_config: VaporTokConfig, tmp_path: Path
) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    config = replace(FROZEN, keep_taildrop=True)
    run = Pretrainer(tiny_config, config, clips, tmp_path, warm_start=tiny)
    kept = {name: value for name, value in tiny.state_dict().items() if name.startswith("taildrop_module.")}
    assert kept
    assert all(torch.equal(run.model.state_dict()[name], value) for name, value in kept.items())
    run.run(validate=lambda model, step: None)
    assert any(not torch.equal(run.model.state_dict()[name], value) for name, value in kept.items())


def test_another_geometry_is_refused_by_name(tiny: VaporTok) -> None:
    model = VaporTok(replace(tiny.config, codebook_size=tiny.config.codebook_size * 2))
    with pytest.raises(ValueError, match=r"got bottleneck\.regularizer\.embedding\.weight of shape .* for "):
        start_from(model, tiny, PretrainConfig(), LOADER)


def test_more_tokens_than_the_checkpoint_has_are_refused(tiny: VaporTok) -> None:
    more = replace(tiny.config, tokens=tiny.config.tokens + 1, prior=replace(tiny.config.prior, positions=64))
    with pytest.raises(ValueError, match=r"Expected a warm start of the geometry being trained, got decoder_latent_pe"):
        start_from(VaporTok(more), tiny, PretrainConfig(), LOADER)


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


@pytest.mark.parametrize(
    ("setting", "value"), [("frozen_encoder", True), ("keep_taildrop", True), ("wake_unheard", 0.05)]
)
def test_what_is_kept_comes_from_somewhere(
    tiny_config: VaporTokConfig, tmp_path: Path, setting: str, value: float
) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=40)
    settings: dict[str, Any] = {"frozen_encoder": False, setting: value}
    with pytest.raises(ValueError, match=f"Expected a warm start with {setting}, got none"):
        Pretrainer(tiny_config, replace(FROZEN, **settings), clips, tmp_path)
